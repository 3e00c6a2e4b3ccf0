"""Maps with the channels of a position side by side in memory."""

import torch
from torch import Tensor

from .graphs import is_transformed


def channels_last(x: Tensor) -> Tensor:
    """Return (N, C, H, W) in the memory format ``torch.channels_last``.

    Inside a transform of ``torch.func``, whose tensors have no such format, ``x`` as it is.
    """
    return x.contiguous(memory_format=torch.channels_last) if _has_formats() else x


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` (N, C, H, W) is in that format."""
    return _has_formats() and x.is_contiguous(memory_format=torch.channels_last)


def _has_formats() -> bool:
    return torch.compiler.is_compiling() or not is_transformed()
