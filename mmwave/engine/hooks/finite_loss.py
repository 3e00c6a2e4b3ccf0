"""A training whose loss is NaN or infinite ends, in all its processes, or goes on without it."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from mmengine.dist import all_gather_object, all_reduce, get_rank, get_world_size
from mmengine.hooks import CheckpointHook, Hook, RuntimeInfoHook
from mmengine.runner import Runner

from mmwave.engine.batches import describe_images, image_paths
from mmwave.engine.model_wrapper import unwrapped
from mmwave.engine.optim_wrapper import FiniteSteps, loss_scaler, optim_wrappers
from mmwave.errors import UserError
from mmwave.registry import HOOKS

MOST_OVERFLOWS = 20
"""So many losses in a row may overflow in float16; mmengine's scaler halves its scale each time."""

_NORM = 'train/grad_norm'
_GRADIENTS = 'the gradients are not finite'
_CURES = (
    'lower the learning rate, clip the gradients (optim_wrapper.clip_grad.max_norm=1.0) or look at '
    'these images and their labels; to leave out up to N such steps set '
    "default_hooks.finite_loss=dict(type='mmwave.FiniteLossHook', max_skipped=N)"
)


class Found(NamedTuple):
    """The first thing that was not finite in a process, in the order that tells most.

    Gradients are those of all processes: the one with the loss is where they come from.
    """

    iteration: int
    in_gradients: bool
    rank: int
    text: str


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """Stop a training at a loss that is not finite, or leave out the steps that had one.

    Every term of the loss is looked at, and the norm of the gradients where they are clipped by it.
    What overflows under a ``GradScaler`` is no fault, unless more than :data:`MOST_OVERFLOWS`
    losses in a row do: it leaves the step out and lowers its scale. The processes of a run end
    together: they ask each other every ``interval`` steps, before every validation and before
    :class:`mmengine.hooks.CheckpointHook` saves. A process that runs alone ends at once.

    Args:
        interval: steps from one question to the others to the next.
        max_skipped: how many steps may be left out, counted from the start of the process; 0 ends
            the run with the first. A step is left out before the optimizer sees it: weights and
            statistics of batch norms stay those of the step before. Each is named in a warning.
            Every step then costs a look at all gradients.

    Raises:
        UserError: where an argument is out of range; and (in the loop, in every process) at the
            first step that may not be left out. The message names terms, iteration, rank, learning
            rate, norm of the gradients and the images of the batch.
    """

    # Before averages are updated, lines are logged and checkpoints are written.
    priority = 'ABOVE_NORMAL'

    def __init__(self, interval: int = 10, max_skipped: int = 0) -> None:
        if interval < 1:
            raise UserError(f'interval={interval} must be at least 1')
        if max_skipped < 0:
            raise UserError(f'max_skipped={max_skipped} must be at least 0')
        self.interval = interval
        self.max_skipped = max_skipped
        self._found: Found | None = None
        self._guards: list[FiniteSteps] = []
        self._seen = 0  # steps left out that were named
        self._waits = False
        self._overflows = 0  # losses in a row that were left to a GradScaler

    def before_train(self, runner: Runner) -> None:
        # mmengine's hook waits for the values of every step. Without it, they are left to come.
        self._waits = any(isinstance(hook, RuntimeInfoHook) for hook in runner.hooks)
        if self.max_skipped and not self._guards:
            model = unwrapped(runner.model)
            self._guards = [
                FiniteSteps(wrapper, model) for wrapper in optim_wrappers(runner).values()
            ]

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None
    ) -> None:
        due = self._is_due(runner)
        if self._found is None and (self._waits or due):
            self._found = self._unless_scaled(runner, _look(runner, data_batch, outputs))
        if self._guards:
            self._name_skipped(runner, data_batch)
        elif due:
            self._stop(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        self._stop(runner)

    def before_val(self, runner: Runner) -> None:
        self._stop(runner)

    def _unless_scaled(self, runner: Runner, found: Found | None) -> Found | None:
        """Return None for an overflow that a ``GradScaler`` answers by a smaller scale."""
        if (
            self._guards
            or found is None
            or not any(map(loss_scaler, optim_wrappers(runner).values()))
        ):
            self._overflows = 0
            return found
        self._overflows += 1
        if self._overflows == 1:
            runner.logger.warning(
                f'{found.text}: left out by the loss scaler, which lowers its scale'
            )
        return found if self._overflows > MOST_OVERFLOWS else None

    def _is_due(self, runner: Runner) -> bool:
        saves = (
            hook.interval
            for hook in runner.hooks
            if isinstance(hook, CheckpointHook) and not hook.by_epoch
        )
        return (
            get_world_size() == 1
            or self.is_last_train_iter(runner)
            or any(self.every_n_train_iters(runner, n) for n in (self.interval, *saves))
        )

    def _stop(self, runner: Runner) -> None:
        """Raise in every process where one has found something, unless steps are left out."""
        if self._guards:
            return
        found = _first(self._found)
        if found is not None:
            raise UserError(f'{found.text}; {_CURES}')

    def _name_skipped(self, runner: Runner, data_batch: Any) -> None:
        skipped = sum(guard.skipped for guard in self._guards)  # the same in every process
        if skipped == self._seen:
            return
        self._seen = skipped
        found = _first(self._found)
        self._found = None
        if found is None:
            found = _found(runner, _GRADIENTS, data_batch)
        if skipped > self.max_skipped:
            raise UserError(
                f'{found.text}; so many steps were left out before as may be '
                f'(max_skipped={self.max_skipped}); {_CURES}'
            )
        runner.logger.warning(
            f'{found.text}: step left out, {skipped} of at most {self.max_skipped} (max_skipped)'
        )


def _look(runner: Runner, batch: Any, outputs: Any) -> Found | None:
    """Return what is not finite in a step of this process, None where all is."""
    losses = {}
    if isinstance(outputs, Mapping):
        losses = {name: value for name, value in outputs.items() if 'loss' in name}
    # The sum of all terms is finite only if each of them is.
    total = {'loss': losses['loss']} if 'loss' in losses else losses
    if not all(math.isfinite(value) for value in map(_number, total.values())):
        terms = {n: value for n, value in losses.items() if n not in total} or total
        values = {name: _number(value) for name, value in terms.items()}
        bad = {name: value for name, value in values.items() if not math.isfinite(value)} or total
        return _found(runner, ', '.join(f'{n} is {_number(v)}' for n, v in bad.items()), batch)
    norm = _norm(runner)
    if (
        norm is None
        or math.isfinite(norm)
        or any(map(loss_scaler, optim_wrappers(runner).values()))
    ):
        return None
    return _found(runner, _GRADIENTS, batch)


def _number(value: Any) -> float:
    return float(value.detach().sum()) if isinstance(value, torch.Tensor) else float(value)


def _norm(runner: Runner) -> float | None:
    """Return the norm of the last step's gradients, None where nothing takes it."""
    history = runner.message_hub.log_scalars.get(_NORM)
    return None if history is None else float(history.current())


def _found(runner: Runner, what: str, batch: Any) -> Found:
    rates = sorted(
        {g['lr'] for w in optim_wrappers(runner).values() for g in w.optimizer.param_groups}
    )
    parts = [f'learning rate {rates[-1]:.3g}']
    norm = _norm(runner)
    if norm is not None:
        parts.append(f'norm of the gradients {norm:.3g}')
    images = describe_images(image_paths(batch))
    if images:
        parts.append(images)
    where = f'iteration {runner.iter + 1}'
    where += f' on rank {get_rank()}' if get_world_size() > 1 else ''
    text = f'in {where} {what} ({"; ".join(parts)})'
    return Found(runner.iter, what == _GRADIENTS, get_rank(), text)


def _first(found: Found | None) -> Found | None:
    """Return the first of what all processes have found; all must call it together."""
    if get_world_size() == 1:
        return found
    flag = torch.tensor(float(found is not None))
    all_reduce(flag, op='max')
    if not flag:
        return None
    return min(entry for entry in all_gather_object(found) if entry is not None)
