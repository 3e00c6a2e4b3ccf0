"""``blend_`` on the CPU in bfloat16 by a kernel in C++, see :mod:`mmwave.ops.extension`."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .. import extension
from ..packed import COLUMNS, constant_pairs


def blend_cpp(
    maps: Sequence[Tensor],
    factors: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    shortcut: Tensor,
) -> Tensor:
    """See :func:`mmwave.ops.blend_`."""
    pairs = constant_pairs(weight)
    torch.ops.mmwave_cpp.blend_(maps[0], maps[1:], factors, pairs, bias, shortcut)
    increment_version(maps[0])
    return maps[0]


def _unsupported(first: Tensor, *others: Tensor) -> str:
    if reason := extension.cannot_multiply(first, *others):
        return reason
    if not first.is_contiguous():
        return 'the first map must be contiguous'
    if first.shape[3] % COLUMNS:
        return f'channels must be a multiple of {COLUMNS}, not {first.shape[3]}'
    return ''


blend_cpp.unsupported = _unsupported  # type: ignore[attr-defined]
