"""Maps with the channels of a position side by side in memory."""

import torch
from torch import Tensor


def channels_last(x: Tensor) -> Tensor:
    """Return (N, C, H, W) in the memory format ``torch.channels_last``.

    Inside a transform of ``torch.func``, whose tensors have no such format, ``x`` as it is.
    """
    return x if _is_transformed() else x.contiguous(memory_format=torch.channels_last)


def is_channels_last(x: Tensor) -> bool:
    """Whether ``x`` (N, C, H, W) is in that format."""
    return not _is_transformed() and x.is_contiguous(memory_format=torch.channels_last)


def _is_transformed() -> bool:
    if torch.compiler.is_compiling():
        return False
    return torch._C._functorch.maybe_current_level() is not None
