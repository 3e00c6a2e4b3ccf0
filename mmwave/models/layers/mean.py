"""Means over the positions of a map."""

import math

import torch
from torch import Tensor


def mean_over(x: Tensor, *axes: int) -> Tensor:
    """``x.mean(dim=axes)``.

    On a CPU torch copies bfloat16 to take a mean of it, but not to sum it up.
    """
    if x.device.type != 'cpu' or x.dtype != torch.bfloat16:
        return x.mean(dim=axes)
    return x.sum(dim=axes) / math.prod(x.shape[axis] for axis in axes)
