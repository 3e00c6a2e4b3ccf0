"""A run that a signal asks to leave saves where it stands, and leaves in all its processes."""

import copy
import math
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from mmengine.dist import (
    all_gather_object,
    all_reduce,
    barrier,
    get_comm_device,
    get_rank,
    get_world_size,
    is_main_process,
)
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import Runner
from torch import Tensor, nn

from mmwave.engine import console, signals
from mmwave.engine.exact_resume.inside_epoch import at_boundary
from mmwave.engine.model_wrapper import unwrapped
from mmwave.engine.training_state import averaged_models
from mmwave.errors import UserError, printable, printable_path
from mmwave.registry import HOOKS

from .sync_buffers import average_buffers

_STATE = 'preemption'  # in a checkpoint: how the run stood
_MOST_STEPS = 200  # between two agreements, should steps become slow all of a sudden


@HOOKS.register_module()
class PreemptionHook(Hook):
    """Save and leave between two steps once SIGTERM or SIGUSR1 has asked for it.

    The processes agree, so that all stop at the same step: about every ``every`` seconds they
    exchange whether one of them was asked. Where a step saves a state that cannot be gone on from
    exactly, within an accumulation of gradients, the next that can is waited for. A validation is
    left too; the run that resumes begins with it.

    ``iter_N.pth`` is written by the run's ``CheckpointHook``, with the state of the optimizer even
    where that one omits it, and the batch statistics of every process. It counts for no
    ``max_keep_ckpts``, and is removed as soon as the run that resumed from it has saved a later
    one. :class:`mmwave.engine.signals.Preempted` ends the training, with an exit code of its own.

    Args:
        every: seconds between two agreements.
        grace: seconds from the signal after which a process leaves that could not save; ``every``
            is a part of them.
    """

    # Before other hooks change anything for the step that does not come.
    priority = 'VERY_HIGH'

    def __init__(self, every: float = 2.0, grace: float = signals.GRACE) -> None:
        for name, value in (('every', every), ('grace', grace)):
            if not (isinstance(value, int | float) and 0 < value < math.inf):
                raise UserError(f'PreemptionHook: {name} is {value!r}, expected seconds above 0')
        self.every = every
        self.grace = grace
        self._context: AbstractContextManager[Any] | None = None
        self._number = 0  # of the signal that all processes leave at
        self._left: str | None = None  # file of a run that left, which this one goes on from
        self._buffers: Any = None  # in it, of all processes
        self._state: dict[str, Any] | None = None  # to save
        self._first = -1  # iteration that this run began at, once it trains
        self._validation_due = False
        self._last, self._steps, self._wait = 0.0, 0, 1  # since and until an agreement
        self._val_steps = 0  # that every process has; 0 outside of validations

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        state = checkpoint.pop(_STATE, None)
        if runner._resume and isinstance(state, Mapping):
            self._buffers = state.get('buffers')
            self._validation_due = state.get('validation_due') is True
            self._left = runner._load_from if state.get('kept') is False else None

    def before_train(self, runner: Runner) -> None:
        if signals.current() is None:  # a runner that was started by other means
            self._context = signals.noted(alone=get_world_size() == 1)
            self._context.__enter__()
        notice = signals.current()
        if notice is not None:
            notice.grace = self.grace
        for loop in (runner.train_loop, runner.val_loop):
            signals.shield_workers(getattr(loop, 'dataloader', None))
        self._first = runner.iter
        self._last = time.monotonic()

    def before_train_epoch(self, runner: Runner) -> None:
        # Not before AgreementHook has compared the processes: from here on they differ.
        _restore_buffers(runner, self._buffers)
        self._buffers = None
        self._validate_if_due(runner)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._agree(self._is_time())
        if self._number and at_boundary(runner):
            self._leave(runner)
        self._remove_left(runner)
        notice = signals.current()
        if notice is not None:
            notice.starting = False

    def before_val(self, runner: Runner) -> None:
        if self._first < 0:  # a validation without a training
            return
        self._agree(True, len(runner.val_dataloader))
        if self._number:
            self._leave(runner, validating=True)

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        if batch_idx < self._val_steps:
            self._agree(self._is_time())
            if self._number:
                _swap_averages_back(runner)
                self._leave(runner, validating=True)

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, float] | None = None) -> None:
        self._val_steps = 0

    def after_train(self, runner: Runner) -> None:
        self._validate_if_due(runner)  # that of the last epoch
        self._remove_left(runner)
        self._first = -1
        if self._context is not None:
            self._context.__exit__(None, None, None)
            self._context = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        if self._state is not None:
            checkpoint[_STATE] = self._state

    def _validate_if_due(self, runner: Runner) -> None:
        due, self._validation_due = self._validation_due, False
        if due and runner.val_loop is not None:
            runner.val_loop.run()

    def _is_time(self) -> bool:
        """Return whether the processes agree at this step, the same in each."""
        self._steps += 1
        return self._steps >= self._wait

    def _agree(self, now: bool, val_steps: int = 0) -> None:
        """Set the number of the signal where one process was asked, and when to agree again.

        Args:
            now: agree; without other processes that is free, and done always.
            val_steps: batches of this process in the validation that begins.
        """
        notice = signals.current()
        number = notice.received if notice is not None else 0
        if get_world_size() == 1:
            self._number = self._number or number
            self._val_steps = val_steps or self._val_steps
            return
        if not now:
            return
        seconds = (time.monotonic() - self._last) / max(self._steps, 1)
        numbers = torch.tensor(
            [float(number), seconds, -float(val_steps)], device=get_comm_device()
        )
        all_reduce(numbers, 'max')
        number, seconds, fewest = numbers.tolist()
        self._number = self._number or int(number)
        if val_steps:
            self._val_steps = int(-fewest)
        # The seconds of the slowest, so that all count the same steps until the next time.
        self._wait = max(1, min(int(self.every / max(seconds, 1e-9)), _MOST_STEPS))
        self._last, self._steps = time.monotonic(), 0

    def _leave(self, runner: Runner, *, validating: bool = False) -> None:
        """Save, unless that was done, and leave; called between two iterations."""
        notice = signals.current()
        if notice is not None:
            notice.saving = True
        saved = self._save(runner, validating)
        text = f'left at {signal.Signals(self._number).name} {saved}'
        barrier()  # what launches the processes ends them all when one has left
        if is_main_process():
            runner.logger.warning(text, extra=console.ON_SCREEN)
        raise signals.Preempted(text, together=True)

    def _save(self, runner: Runner, validating: bool) -> str:
        """Return what was saved and how to go on."""
        if runner.iter == 0:
            return 'before the first step: there is nothing to save, start anew'
        hook = _checkpoint_hook(runner)
        goes_on = f'after iteration {runner.iter}: --resume goes on from '
        source = runner._load_from
        if runner.iter == self._first and source and _is_in(hook.out_dir, source):
            return goes_on + printable_path(source)
        path = hook.file_backend.join_path(hook.out_dir, hook.filename_tmpl.format(runner.iter))
        # A regular one of this iteration, whose name it takes, remains one.
        kept = is_main_process() and hook.file_backend.isfile(path)
        self._state = dict(
            validation_due=validating, kept=bool(kept), buffers=_gathered_buffers(runner)
        )
        try:
            hook._save_checkpoint_with_step(
                runner, runner.iter, meta=dict(epoch=runner.epoch, iter=runner.iter)
            )
        except (OSError, RuntimeError) as error:
            return f'{goes_on}an earlier checkpoint, since saving failed: {printable(error)}'
        if is_main_process():
            if not hook.file_backend.isfile(path):
                return f'{goes_on}an earlier checkpoint, since saving failed'
            if self._left is not None and not _is_same(self._left, path):
                _remove(hook, self._left)
        return goes_on + printable_path(path)

    def _remove_left(self, runner: Runner) -> None:
        """Remove the file that this run went on from once a later checkpoint is there."""
        if self._left is None:
            return
        for hook in runner.hooks:
            last = getattr(hook, 'last_ckpt', None)
            if isinstance(hook, CheckpointHook) and last and not _is_same(last, self._left):
                if is_main_process() and hook.file_backend.isfile(last):
                    _remove(hook, self._left)
                self._left = None
                return


def _checkpoint_hook(runner: Runner) -> CheckpointHook:
    """Return a copy of the run's hook that saves the whole state by iteration, counted nowhere."""
    own = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    if own:
        hook = copy.copy(own[0])
    else:
        hook = CheckpointHook()
        hook.before_train(runner)
    hook.by_epoch = False
    hook.filename_tmpl = 'iter_{}.pth'
    hook.save_optimizer = hook.save_param_scheduler = True
    hook.max_keep_ckpts = -1
    return hook


def _swap_averages_back(runner: Runner) -> None:
    """Undo what ``EMAHook`` did before the validation."""
    for hook in runner.hooks:
        if isinstance(hook, EMAHook) and getattr(hook, 'evaluate_on_ema', True):
            hook._swap_ema_parameters()


def _models(runner: Runner) -> Sequence[nn.Module]:
    return [unwrapped(runner.model), *averaged_models(runner)]


def _statistics(model: nn.Module) -> dict[str, Tensor]:
    """Return the buffers that processes may have of their own, and that are saved, by name."""
    saved = model.state_dict()
    buffers = model.named_buffers()
    return {k: b for k, b in buffers if k in saved and b.is_floating_point() and b.numel()}


def _gathered_buffers(runner: Runner) -> list[list[dict[str, Tensor]]] | None:
    """Return each process's statistics of each model, then give all of them the mean.

    The means are what a validation of this state sees, the others what training goes on with.
    """
    if get_world_size() == 1:
        return None
    own = [{k: b.cpu().clone() for k, b in _statistics(m).items()} for m in _models(runner)]
    every = all_gather_object(own)
    average_buffers(buffer for model in _models(runner) for buffer in model.buffers())
    return every


@torch.no_grad()
def _restore_buffers(runner: Runner, saved: Any) -> None:
    """Give this process its own statistics; in another number of processes the means stay."""
    if not isinstance(saved, list) or len(saved) != get_world_size():
        return
    for model, own in zip(_models(runner), saved[get_rank()], strict=False):
        for name, buffer in _statistics(model).items():
            value = own.get(name)
            if isinstance(value, Tensor) and value.shape == buffer.shape:
                buffer.copy_(value)


def _remove(hook: CheckpointHook, path: str) -> None:
    """Remove a file of a run that left, right in the folder that the hook writes to."""
    if _is_in(hook.out_dir, path) and hook.file_backend.isfile(path):
        hook.file_backend.remove(path)


def _is_in(folder: str, path: str) -> bool:
    return _is_same(os.path.dirname(path), folder)


def _is_same(path: str, other: str) -> bool:
    return os.path.realpath(path) == os.path.realpath(other)
