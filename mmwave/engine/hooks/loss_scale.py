"""The scale of the loss in mixed precision, in every line of the log."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmwave.engine.optim_wrapper import loss_scaler, optim_wrappers
from mmwave.errors import UserError
from mmwave.registry import HOOKS


class _Scaled:
    """A wrapper whose losses are scaled, and how many steps in a row its scaler left out."""

    def __init__(self, wrapper: Any) -> None:
        self.wrapper = wrapper
        self.skipped = 0
        self._count = wrapper.inner_count
        self._stepped = False
        wrapper.optimizer.register_step_post_hook(self._note)

    def _note(self, *_: Any) -> None:
        self._stepped = True

    def look(self) -> None:
        """Count on after an iteration."""
        count, self._count = self._count, self.wrapper.inner_count
        if self._count != count and self.wrapper.should_update():
            self.skipped = 0 if self._stepped else self.skipped + 1
            self._stepped = False

    @property
    def scale(self) -> float:
        return float(self.wrapper.loss_scaler.get_scale())


@HOOKS.register_module()
class LossScaleHook(Hook):
    """Log ``loss_scale`` where a ``GradScaler`` scales the loss, and warn where that goes wrong.

    The scaler leaves out steps whose gradients overflow, as the first ones often do, and halves a
    dynamic scale each time. A scale that falls below ``least``, or ``max_in_a_row`` steps left out
    one after the other, are said once each time that it happens.

    Args:
        least: the least scale without a warning.
        max_in_a_row: steps left out in a row with a warning.

    Raises:
        UserError: where an argument is not above 0.
    """

    # Before the line is logged.
    priority = 'ABOVE_NORMAL'

    def __init__(self, least: float = 1.0, max_in_a_row: int = 20) -> None:
        for name, value in (('least', least), ('max_in_a_row', max_in_a_row)):
            if value <= 0:
                raise UserError(f'{name}={value} must be above 0')
        self.least = least
        self.max_in_a_row = max_in_a_row
        self._scaled: dict[str, _Scaled] = {}
        self._is_low: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        wrappers = optim_wrappers(runner).items()
        if not self._scaled:
            self._scaled = {n: _Scaled(w) for n, w in wrappers if loss_scaler(w) is not None}

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        for name, scaled in self._scaled.items():
            lead = f'{name}.' if name else ''
            scale = scaled.scale
            runner.message_hub.update_scalar(f'train/{lead}loss_scale', scale)
            scaled.look()
            where = f'{lead}loss_scale is {scale:g} in iteration {runner.iter + 1}'
            cure = 'gradients are NaN, or too large for float16: set optim_wrapper.dtype=bfloat16'
            cure += ' where the GPU has it, lower the learning rate, or train without AMP'
            if scale >= self.least:
                self._is_low.discard(name)
            elif name not in self._is_low:
                self._is_low.add(name)
                runner.logger.warning(f'{where}, below {self.least:g}: {cure}')
            if scaled.skipped == self.max_in_a_row:
                runner.logger.warning(
                    f'{where}: {scaled.skipped} steps in a row were left out, {cure}'
                )
