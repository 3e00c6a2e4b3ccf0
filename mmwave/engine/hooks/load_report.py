"""Say how much of a checkpoint went into the model, and stop where it was next to nothing."""

from collections.abc import Sequence
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmwave.checkpoint import (
    check_settings,
    load_matching,
    not_finite,
    not_finite_line,
    state_dict_of,
)
from mmwave.engine.model_wrapper import unwrapped
from mmwave.engine.training_state import averaged_models, check_exchange
from mmwave.errors import UserError
from mmwave.registry import HOOKS


@HOOKS.register_module()
class LoadReportHook(Hook):
    """Log how many tensors of the model a checkpoint holds when the runner loads it.

    mmengine loads what matches and goes on, also where nothing does. A checkpoint that is a bare
    state dict, or holds it as ``model``, is brought into mmengine's form.

    Args:
        min_fraction: the least part of the model's tensors that must match, 0 to 1. A training that
            is resumed needs them all.
        may_differ: what the names of tensors begin with that may have another shape in the
            checkpoint and are then left as they were, beside heads and tables of positions.

    Raises:
        UserError: on loading, where the checkpoint holds no weights, fewer match or one has another
            shape, or a backbone is given weights of its other form (train, deploy) or weights that
            were noted to need other settings.
    """

    # Before EMAHook, which expects the entry that is made here.
    priority = 'HIGH'

    def __init__(self, min_fraction: float = 0.5, may_differ: Sequence[str] = ()) -> None:
        self.min_fraction = min_fraction
        self.may_differ = (may_differ,) if isinstance(may_differ, str) else tuple(may_differ)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        model = unwrapped(runner.model)
        state = state_dict_of(checkpoint)
        checkpoint.setdefault('state_dict', state)
        # mmengine loads the same tensors once more right after; here they are counted.
        report = load_matching(
            model,
            state,
            min_fraction=1.0 if runner._resume else self.min_fraction,
            source='the checkpoint',
            may_differ=self.may_differ,
        )
        runner.logger.info(report.summary())
        check_settings(model, checkpoint, 'the checkpoint')
        self._check_average(runner, checkpoint, state)

    @staticmethod
    def _check_average(
        runner: Runner, checkpoint: dict[str, Any], state: dict[str, Tensor]
    ) -> None:
        """Look at averaged weights, which a run that averages exchanges with the others."""
        averaged = checkpoint.get('ema_state_dict')
        if averaged is None or not averaged_models(runner):
            return
        try:
            check_exchange(averaged, state)
        except UserError as error:
            raise UserError(f'the checkpoint cannot be loaded: {error}') from error
        damage = not_finite_line(not_finite(averaged))
        if damage:
            runner.logger.warning(f'of the averaged weights {damage}')
