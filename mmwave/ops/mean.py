"""Means over the positions of a map."""

import torch
from torch import Tensor


def mean_over(x: Tensor, *axes: int) -> Tensor:
    """Return ``x.mean(dim=axes)``.

    torch's CPU mean of bfloat16 makes a copy; its sum does not.
    """
    if x.device.type != 'cpu' or x.dtype != torch.bfloat16:
        return x.mean(dim=axes)
    count = 1
    for axis in axes:  # not math.prod, which cannot be traced with dynamic sizes
        count *= x.shape[axis]
    return x.sum(dim=axes) / count
