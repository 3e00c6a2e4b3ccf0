"""What weights were trained with and what they scored, noted in every checkpoint."""

from collections.abc import Mapping
from typing import Any

import mmengine
import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner

import mmwave
from mmwave.engine.training_state import is_number
from mmwave.registry import HOOKS

VALIDATED, VERSIONS = 'validated', 'versions'
"""Entries of ``meta``: the last validation (epoch, iter, metrics); versions by library."""


@HOOKS.register_module()
class ProvenanceHook(Hook):
    """Note the last validation and the versions of torch, mmengine and mmwave in checkpoints.

    A checkpoint is of the weights that were validated where both are at the same iteration: the
    best ones are, and others hold the validation before them.
    """

    # The hook that saves the best checkpoint does so after a validation, later than this one.
    priority = 'HIGHEST'

    def __init__(self) -> None:
        self._validated: dict[str, Any] | None = None

    def after_val_epoch(self, runner: Runner, metrics: Mapping[str, Any] | None = None) -> None:
        numbers = {name: float(v) for name, v in (metrics or {}).items() if is_number(v)}
        self._validated = dict(epoch=runner.epoch, iter=runner.iter, metrics=numbers)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        checkpoint['meta'][VERSIONS] = {
            'torch': str(torch.__version__),
            'mmengine': mmengine.__version__,
            'mmwave': mmwave.__version__,
        }
        if self._validated is not None:
            checkpoint['meta'][VALIDATED] = self._validated
