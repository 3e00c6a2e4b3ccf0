"""``mlp_add_`` on the CPU in bfloat16 by a kernel in C++, see :mod:`mmwave.ops.extension`."""

from typing import Literal

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .. import extension
from ..packed import COLUMNS, constant_pairs


def mlp_add_cpp(
    x: Tensor,
    source: Tensor,
    weight1: Tensor,
    bias1: Tensor,
    weight2: Tensor,
    bias2: Tensor,
    *,
    gelu: Literal['none', 'tanh'] = 'none',
) -> Tensor:
    """See :func:`mmwave.ops.mlp_add_`."""
    pairs1, pairs2 = (constant_pairs(w) for w in (weight1, weight2))
    torch.ops.mmwave_cpp.mlp_add_(x, source, pairs1, bias1, pairs2, bias2)
    increment_version(x)
    return x


def _unsupported(
    x: Tensor,
    source: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    gelu: Literal['none', 'tanh'] = 'none',
) -> str:
    if gelu != 'none':
        return f'it computes the exact GELU, not gelu={gelu!r}'
    if bias1 is None or bias2 is None:
        return 'it needs both biases'
    reason = extension.cannot_multiply(x, source, weight1, weight2, bias1, bias2)
    if reason:
        return reason
    if not all(t.is_contiguous() for t in (x, source, bias1, bias2)):
        return 'x, source and biases must be contiguous'
    if weight2.shape[1] % COLUMNS or weight2.shape[0] % COLUMNS or weight1.shape[1] % 2:
        return (
            f'hidden channels and outputs must be multiples of {COLUMNS}, inputs even, not '
            f'{weight2.shape[1]}, {weight2.shape[0]} and {weight1.shape[1]}'
        )
    return ''


mlp_add_cpp.unsupported = _unsupported  # type: ignore[attr-defined]
