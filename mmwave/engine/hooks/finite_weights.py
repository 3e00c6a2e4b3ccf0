"""Weights that are NaN or infinite are neither trained from nor tested nor written."""

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmwave.checkpoint import not_finite, not_finite_line
from mmwave.engine.model_wrapper import unwrapped
from mmwave.engine.training_state import averaged_models
from mmwave.errors import UserError, printable_path
from mmwave.registry import HOOKS


class NotFiniteError(UserError):
    """Weights hold NaN or infinite values."""


@HOOKS.register_module()
class FiniteWeightsHook(Hook):
    """End a run whose weights are NaN or infinite, before its first step and before it saves them.

    The model is looked at when it is about to be trained or tested, wherever its weights came from
    (``load_from``, a checkpoint that is resumed, ``init_cfg``), and what is about to be written
    whenever a checkpoint is, averaged weights included. A buffer may hold as many such values as it
    does when the model is built, a mask of attention for one.

    Args:
        ignore: beginnings of names of tensors that may hold such values, ``['']`` for all.

    Raises:
        NotFiniteError: with the names of the tensors. Before the first step every process raises;
            on saving the one that writes, whose ``mmwave.CheckpointHook`` tells the others.
    """

    # Where a checkpoint is written: after EMAHook, which adds the averaged weights to it.
    priority = 'VERY_LOW'

    def __init__(self, ignore: Sequence[str] = ()) -> None:
        self.ignore = tuple(ignore)
        self._as_built: dict[str, int] = {}

    def before_run(self, runner: Runner) -> None:
        self._as_built = not_finite(dict(unwrapped(runner.model).named_buffers()))

    def before_train(self, runner: Runner) -> None:
        self._check_model(runner)

    def before_test(self, runner: Runner) -> None:
        self._check_model(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        states = {'': checkpoint['state_dict'], 'of the average ': checkpoint.get('ema_state_dict')}
        line = self._line(states)
        if line:
            raise NotFiniteError(
                f'{line}: no checkpoint is written after {runner.iter} iterations, as a training '
                'does not recover from this. A lower learning rate or clip_grad may keep it from '
                'happening; the checkpoints before are kept'
            )

    def _check_model(self, runner: Runner) -> None:
        models = (unwrapped(runner.model), *averaged_models(runner))
        leads = ('', *('of the average ' for _ in models[1:]))
        # Of a training every process has weights of its own: all learn what one has found.
        lines = all_gather_object(
            self._line(
                {lead: model.state_dict() for lead, model in zip(leads, models, strict=True)}
            )
        )
        for line in filter(None, lines):
            path = runner._load_from
            source = f'those of {printable_path(path)}' if path else 'before the first step'
            raise NotFiniteError(
                f'{line}, {source}: use another checkpoint. Where they do no harm, custom_hooks='
                "[dict(type='mmwave.FiniteWeightsHook', ignore=[...])] lists beginnings of names"
            )

    def _line(self, states: Mapping[str, Mapping[str, Tensor] | None]) -> str:
        """Return what is not finite and should be, in words, empty where nothing is."""
        found = {
            f'{lead}{name}': count
            for lead, state in states.items()
            for name, count in not_finite(_tensors(state or {})).items()
            if not self._may(name.removeprefix('module.'), count)
        }
        return not_finite_line(found)

    def _may(self, name: str, count: int) -> bool:
        return count <= self._as_built.get(name, 0) or name.startswith(self.ignore)


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}
