"""The model inside of a runner's wrapper for several processes."""

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model itself, without the wrapper that distributed runs put around it."""
    return model.module if is_model_wrapper(model) else model
