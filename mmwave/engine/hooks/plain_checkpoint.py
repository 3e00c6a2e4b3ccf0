"""Checkpoints that every library reads without running code."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmwave.engine.checkpoints.plain import make_plain
from mmwave.errors import printable
from mmwave.registry import HOOKS

_MOST = 4  # that are named


@HOOKS.register_module()
class PlainCheckpointHook(Hook):
    """Write checkpoints of tensors and plain Python data alone.

    ``torch.load(path, weights_only=True)``, torch's default, then reads them in any program, and
    mmengine's Runner resumes from them; it begins the histories of logged values anew, which
    :class:`ResumeCheckHook` brings back. What other hooks add and has no plain form stays, with a
    warning.
    """

    # Behind every hook that adds to a checkpoint.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self._told = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        try:
            others = make_plain(checkpoint)
        except RecursionError:
            others = ['an entry that holds itself']
        if others and not self._told:
            self._told = True
            more = f' and {len(others) - _MOST} more' if len(others) > _MOST else ''
            runner.logger.warning(
                f'the checkpoints hold {printable(", ".join(others[:_MOST]), 1000)}{more}: '
                'torch.load(weights_only=True) refuses them'
            )
