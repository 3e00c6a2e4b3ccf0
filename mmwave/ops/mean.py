"""Means over the positions of a map."""

import torch
from torch import Tensor


def mean_over(x: Tensor, *axes: int) -> Tensor:
    """``x.mean(dim=axes)``.

    On a CPU torch copies bfloat16 to take a mean of it, but not to sum it up.
    """
    if x.device.type != 'cpu' or x.dtype != torch.bfloat16:
        return x.mean(dim=axes)
    count = 1
    for axis in axes:  # not math.prod, which a graph for any size cannot hold
        count *= x.shape[axis]
    return x.sum(dim=axes) / count
