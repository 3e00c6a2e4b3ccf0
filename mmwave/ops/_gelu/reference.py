"""The definition of ``gelu_``: torch's own."""

import torch
from torch import Tensor


def gelu_reference(x: Tensor, approximate: str = 'none') -> Tensor:
    """See :func:`mmwave.ops.gelu_`."""
    return torch.ops.aten.gelu_(x, approximate=approximate)
