"""How far an epoch had come in a checkpoint, and training from there on."""

from collections.abc import Mapping
from typing import Any

from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner

from mmwave.engine.optim_wrapper import optim_wrappers
from mmwave.errors import UserError


def at_boundary(runner: Runner) -> bool:
    """Return whether a checkpoint that is saved now holds all of the training.

    Gradients that are accumulated over several iterations are in no checkpoint. To be asked between
    two steps, as in ``after_train_iter`` or ``before_train_iter``.
    """
    wrappers = optim_wrappers(runner).values()
    return all(w.should_update() for w in wrappers if hasattr(w, 'should_update'))


def resumes_inside_epoch(runner: Runner) -> bool:
    """Return whether the loop can go on at a batch inside an epoch, or counts no epochs at all.

    An epoch of a loop of another kind begins anew.
    """
    loop = runner.train_loop
    if isinstance(loop, IterBasedTrainLoop):
        return True
    epoch = getattr(type(loop), 'run_epoch', None)
    return epoch is EpochBasedTrainLoop.run_epoch


class EpochStarts:
    """The iterations at which the epoch that runs and the next one begin."""

    def __init__(self) -> None:
        self._starts: dict[int, int] = {}

    def begin(self, epoch: int, iteration: int) -> None:
        """Note that an epoch begins at an iteration."""
        last = self._starts.get(epoch - 1)
        self._starts = {epoch: iteration} if last is None else {epoch - 1: last, epoch: iteration}

    def batches_done(self, meta: Mapping[str, Any]) -> int:
        """Return how many batches of its epoch a checkpoint with this ``meta`` has done."""
        iteration = meta.get('iter', 0)
        return max(0, iteration - self._starts.get(meta.get('epoch', 0), iteration))


class ShiftedIterations:
    """Stands in for ``run_iter`` of a loop for the rest of an epoch, which counts from ``first``.

    Args:
        loop: of epochs.
        first: number of the batch that comes first.
    """

    def __init__(self, loop: EpochBasedTrainLoop, first: int) -> None:
        self._run_iter = loop.run_iter
        self._first = first

    def __call__(self, idx: int, data_batch: Any) -> None:
        self._run_iter(idx + self._first, data_batch)


def begin_inside(loop: EpochBasedTrainLoop, first: int) -> None:
    """Have a loop count the batches of the epoch that comes next from ``first`` on."""
    vars(loop)['run_iter'] = ShiftedIterations(loop, first)


def end_inside(loop: Any) -> None:
    """Have a loop count from 0 again."""
    shifted = vars(loop).get('run_iter')
    if isinstance(shifted, ShiftedIterations):
        vars(loop)['run_iter'] = shifted._run_iter


def batches_of_stock(checkpoint: Mapping[str, Any], length: int) -> int:
    """Return the batches that were done of an epoch, in a checkpoint that does not say.

    mmengine's ``CheckpointHook(by_epoch=False)`` in a run of epochs writes such files. Iterations
    tell it where the epochs were as long as they are now.

    Args:
        checkpoint: whose ``meta`` is checked.
        length: of an epoch.
    """
    hub = checkpoint.get('message_hub')
    info = hub.get('runtime_info') if isinstance(hub, dict) else None
    if not isinstance(info, dict) or not length:
        return 0
    iters, epochs = info.get('max_iters'), info.get('max_epochs')
    if type(iters) is not int or type(epochs) is not int or iters != epochs * length:
        return 0
    done = checkpoint['meta']['iter'] - checkpoint['meta']['epoch'] * length
    return done if 0 < done <= length else 0


def check_batches(given: Any, length: Any) -> None:
    """Check how many batches of how many a checkpoint says that its epoch has done.

    Raises:
        UserError: where they are no such numbers.
    """
    for name, value in (('batches', given), ('length', length)):
        if type(value) is not int or not 0 <= value < 2**40:
            raise UserError(f'its exact_resume.{name} is no whole number from 0')
    if given > length:
        raise UserError(f'its exact_resume.batches is {given}, of an epoch of {length}')
