"""The definition of ``linear``: torch's own."""

import torch.nn.functional as F
from torch import Tensor


def linear_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    gelu: str | None = None,
    constant: bool = False,
) -> Tensor:
    """See :func:`mmwave.ops.linear`."""
    y = F.linear(x, weight, bias)
    return y if gelu is None else F.gelu(y, approximate=gelu)
