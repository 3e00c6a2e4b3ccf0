"""Processes are compared before the first step and before a test."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmwave.engine.agreement import check_start
from mmwave.registry import HOOKS


@HOOKS.register_module()
class AgreementHook(Hook):
    """Compare epoch, iteration and weights of all processes once, before the first step.

    Raises:
        UserError: in every process, where they differ.
    """

    # After all that changes weights or counters before a training.
    priority = 'VERY_LOW'

    def before_train(self, runner: Runner) -> None:
        self._compare(runner)

    def before_test(self, runner: Runner) -> None:
        self._compare(runner)

    @staticmethod
    def _compare(runner: Runner) -> None:
        for line in check_start(runner):
            runner.logger.warning(line)
