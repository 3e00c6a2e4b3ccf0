"""The definition of ``mlp_add_``: two linear layers."""

from typing import Literal

from torch import Tensor

from .._linear import linear
from ..chunks import add_in_parts


def mlp_add_reference(
    x: Tensor,
    source: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    *,
    gelu: Literal['none', 'tanh'] = 'none',
) -> Tensor:
    """See :func:`mmwave.ops.mlp_add_`."""

    def branch(rows: Tensor) -> Tensor:
        hidden = linear(rows, weight1, bias1, gelu=gelu, constant=True)
        return linear(hidden, weight2, bias2, constant=True)

    return add_in_parts(x, source, branch)
