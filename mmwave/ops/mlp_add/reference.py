"""The definition of ``mlp_add_``: two linear layers."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from ..linear import linear

ROWS = 8192
"""Positions at a time on the CPU."""


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


def add_in_parts(x: Tensor, source: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """Add ``branch(source)`` to ``x``, (P, ..) both.

    On a CPU some positions at a time: memory that large maps would need anew costs more than the
    products.
    """
    step = ROWS if x.device.type == 'cpu' else max(1, len(x))
    parts = (t.split(step) for t in (x, source))  # type: ignore[no-untyped-call]
    for part, rows in zip(*parts, strict=True):
        part.add_(branch(rows))
    return x
