"""The model inside of a runner's wrapper for several processes, or of test-time augmentation."""

from collections.abc import Mapping
from typing import Any

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module, *, from_tta: bool = True) -> nn.Module:
    """Return the model itself, whose weights a checkpoint names.

    Args:
        model: may be wrapped as distributed runs do, and that of test-time augmentation.
        from_tta: whether that is taken off as well.
    """
    while is_model_wrapper(model) or (from_tta and isinstance(model, BaseTTAModel)):
        model = model.module
    return model


def unwrapped_settings(model: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the model's own settings in a config, those inside of test-time augmentation's."""
    while isinstance(model.get('module'), Mapping):
        model = model['module']
    return model
