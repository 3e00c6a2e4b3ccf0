"""An axis as a ring, on which the last position is followed by the first."""

import torch
from torch import Tensor

from .graphs import is_dynamic


def extended(x: Tensor, dim: int, step: int, shift: int = 0) -> Tensor:
    """Roll an axis forwards, then extend it to a multiple of ``step`` by its own first positions.

    Args:
        x: a map, H x W positions along two of its axes.
        dim: the axis.
        step: of which the length becomes a multiple.
        shift: positions to roll by.
    """
    size = x.shape[dim]
    whole = (size + step - 1) // step * step
    if is_dynamic(size):
        index = (torch.arange(whole, device=x.device) % size - shift) % size
        return x.index_select(dim, index)
    if shift:
        x = x.roll(shift, dim)
    while x.shape[dim] < whole:  # more than once where the axis is shorter than half a step
        more = min(whole - x.shape[dim], size)
        x = torch.cat([x, x.narrow(dim, 0, more)], dim)
    return x


def restored(x: Tensor, dim: int, size: int, shift: int = 0) -> Tensor:
    """Undo :func:`extended`: crop an axis to its first ``size`` positions, then roll it back."""
    if is_dynamic(size):
        # Of a slice it would depend on the size whether it is contiguous.
        return x.index_select(dim, (torch.arange(size, device=x.device) + shift) % size)
    x = x.narrow(dim, 0, size)
    return x.roll(-shift, dim) if shift else x
