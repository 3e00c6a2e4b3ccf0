"""Overlapping patches of a map, one row of values each."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .graphs import needs_opaque_op, unaliased
from .overridable import overridable


@overridable
def patches(
    x: Tensor, side: int, stride: int, padding: int, *, channels_last: bool = False
) -> Tensor:
    """Return the values of the square at every step: (N, H, W, C) -> (N, H', W', C * side * side).

    H' = floor((H + 2 padding - side) / stride) + 1, and W' alike.

    Args:
        x: a map, channels last.
        side: rows and columns of a patch.
        stride: rows, and columns, from one patch to the next.
        padding: zeros added on every side of the map, in positions.
        channels_last: whether values are ordered by row, column and channel of a patch instead of
            by channel, row and column.
    """
    if needs_opaque_op(*x.shape):
        return _op(x, side, stride, padding, channels_last)
    margins = (_margins(n, side, stride, padding) for n in (x.shape[2], x.shape[1]))
    x = F.pad(x, (0, 0, *next(margins), *next(margins)))
    for axis in (1, 2):
        x = x.unfold(axis, side, stride)  # (N, H', W', C, side, side)
    return (x.permute(0, 1, 2, 4, 5, 3) if channels_last else x).flatten(3)


def _count(length: int, side: int, stride: int, padding: int) -> int:
    # Not a quotient plus one, which for dynamic sizes is not known to be positive.
    return (length + 2 * padding - side + stride) // stride


def _margins(length: int, side: int, stride: int, padding: int) -> tuple[int, int]:
    """Return the padding before and after an axis that whole patches fill; negative ones crop."""
    filled = (_count(length, side, stride, padding) - 1) * stride + side
    return padding, filled - padding - length


@torch.library.custom_op('mmwave::patches', mutates_args=())
def _op(x: Tensor, side: int, stride: int, padding: int, channels_last: bool) -> Tensor:
    """Compute :func:`patches` as a custom op: a copy."""
    return unaliased(patches(x, side, stride, padding, channels_last=channels_last), x)


@_op.register_fake
def _(x: Tensor, side: int, stride: int, padding: int, channels_last: bool) -> Tensor:
    n, *size, c = x.shape
    height, width = (_count(length, side, stride, padding) for length in size)
    return x.new_empty(n, height, width, c * side * side)


@torch.library.custom_op('mmwave::patches_backward', mutates_args=())
def _backward_op(
    gradient: Tensor,
    height: int,
    width: int,
    side: int,
    stride: int,
    padding: int,
    channels_last: bool,
) -> Tensor:
    """Return the gradient of the map (N, height, width, C), summed over patches."""
    values = gradient.flatten(1, 2).transpose(1, 2)
    if channels_last:
        parts = values.view(len(values), side * side, -1, values.shape[2])
        values = parts.transpose(1, 2).flatten(1, 2)
    folded = F.fold(values, (height, width), side, padding=padding, stride=stride)
    return folded.permute(0, 2, 3, 1).contiguous()


@_backward_op.register_fake
def _(
    gradient: Tensor,
    height: int,
    width: int,
    side: int,
    stride: int,
    padding: int,
    channels_last: bool,
) -> Tensor:
    n, _, _, values = gradient.shape
    return gradient.new_empty(n, height, width, values // side**2)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    x, *settings = inputs
    ctx.settings = *x.shape[1:3], *settings


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    return _backward_op(gradient, *ctx.settings), None, None, None, None


_op.register_autograd(_differentiate, setup_context=_keep)
