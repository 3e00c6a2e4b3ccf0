"""The memory format ``torch.channels_last``, also where tensors have no memory format."""

import torch
from torch import Tensor

from .graphs import is_transformed

HEIGHT, WIDTH = 2, 3
"""Axes of a map (N, C, H, W)."""


def channels_last(x: Tensor) -> Tensor:
    """Return ``x`` (N, C, H, W) in the memory format ``torch.channels_last``.

    Inside a transform of ``torch.func``, whose tensors have no memory format, return ``x`` itself.
    """
    return x.contiguous(memory_format=torch.channels_last) if _has_formats() else x


def is_channels_last(x: Tensor) -> bool:
    """Return whether ``x`` (N, C, H, W) is in that format."""
    return _has_formats() and x.is_contiguous(memory_format=torch.channels_last)


def _has_formats() -> bool:
    return torch.compiler.is_compiling() or not is_transformed()
