"""What a run was doing when an exception ended it: phase, iteration, images.

It is read from the frames of the exception's traceback, where mmengine's loops and those derived
from them hold it, so that a run that goes well pays nothing.
"""

import os.path as osp
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import Any, NamedTuple

from mmengine.runner import Runner
from mmengine.runner.base_loop import BaseLoop
from torch import Tensor

from .batches import describe_images, image_paths

_PHASES = {'train': 'training', 'val': 'validation', 'test': 'testing'}
_NAMED = 5  # images, and shapes


class FailedStep(NamedTuple):
    """The step of a run that an exception ended.

    Attributes:
        runner: of the run, None where the exception was raised outside of one.
        split: ``'train'``, ``'val'`` or ``'test'``, None outside of the loops.
        where: phase, epoch and iteration, counted from 1 as in the log; empty outside of the loops.
        images: paths of the batch's images, none where it was not loaded yet.
        shapes: of the batch's inputs, as loaded, one a sample.
    """

    runner: Runner | None = None
    split: str | None = None
    where: str = ''
    images: tuple[str, ...] = ()
    shapes: tuple[tuple[int, ...], ...] = ()

    def named_images(self) -> str:
        """Return the first five paths and the number of all, empty where there are none."""
        return describe_images(self.images)

    def batch(self) -> str:
        """Return number and shapes of the batch's inputs, empty where it was not loaded yet."""
        if not self.shapes:
            return ''
        counts = Counter('x'.join(map(str, shape)) for shape in self.shapes)
        shown = [f'{n} of {shape}' for shape, n in counts.most_common(_NAMED)]
        more = ', ...' if len(counts) > _NAMED else ''
        return f'a batch of {len(self.shapes)} ({", ".join(shown)}{more})'


def failed_step(error: BaseException) -> FailedStep:
    """Return the step that ``error`` ended, as far as its traceback tells."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    owners = [frame.f_locals.get('self') for frame in frames]
    runner = next((owner for owner in owners if isinstance(owner, Runner)), None)
    # A training calls the loop of its validation: the innermost is at work.
    loop = next((owner for owner in reversed(owners) if isinstance(owner, BaseLoop)), None)
    runner = runner or getattr(loop, 'runner', None)
    if runner is None or loop is None:
        return FailedStep(runner)
    split = next(
        (split for split in _PHASES if getattr(runner, f'_{split}_loop', None) is loop), None
    )
    step = _frame_of_step(frames, loop)
    batch = step.f_locals['data_batch'] if step is not None else None
    where = _where(runner, split, step, loop)
    images = tuple(image_paths(batch))
    return FailedStep(runner, split, where, images, tuple(_shapes(batch)))


def log_file(runner: Runner) -> str | None:
    """Return the path of the run's log file, which the first process writes; None: not here."""
    path = osp.join(runner.log_dir, f'{runner.timestamp}.log')
    return path if osp.isfile(path) else None


def _frame_of_step(frames: list[FrameType], loop: BaseLoop) -> FrameType | None:
    """Return the frame of the loop's method that works on one batch.

    It is told from the loop itself, whose variables hold the batch before while the next is loaded.
    """
    return next(
        (
            frame
            for frame in frames
            if frame.f_locals.get('self') is loop
            and frame.f_code.co_name == 'run_iter'
            and 'data_batch' in frame.f_locals
        ),
        None,
    )


def _where(runner: Runner, split: str | None, step: FrameType | None, loop: BaseLoop) -> str:
    if split is None and not hasattr(loop, '_iter') and step is None:
        return f'{type(loop).__name__} was being built'
    phase = _PHASES.get(split or '', type(loop).__name__)
    if split == 'train':
        by_epoch = hasattr(loop, 'run_epoch')
        epoch = f', epoch {runner.epoch + 1} of {runner.max_epochs}' if by_epoch else ''
        number = min(runner.iter + 1, runner.max_iters)
        place = f'{phase}{epoch}, iteration {number} of {runner.max_iters}'
        return place if step is not None else f'{place}, outside of its step'
    after = f' after iteration {runner.iter}' if split == 'val' and runner.iter else ''
    index = step.f_locals.get('idx') if step is not None else None
    number = f', batch {index + 1} of {len(loop.dataloader)}' if isinstance(index, int) else ''
    return f'{phase}{after}{number}'


def _shapes(node: Any) -> Iterator[tuple[int, ...]]:
    """Yield the shape of each input of a batch, without the dimension of the batch."""
    inputs = node.get('inputs') if isinstance(node, Mapping) else None
    if isinstance(inputs, Tensor):
        yield from (tuple(inputs.shape[1:]) for _ in range(len(inputs)))
    elif isinstance(inputs, Mapping):  # of several branches
        for value in inputs.values():
            yield from _shapes(dict(inputs=value))
    elif isinstance(inputs, list | tuple):
        for value in inputs:
            if isinstance(value, Tensor):
                yield tuple(value.shape)
            else:
                yield from _shapes(dict(inputs=value))
