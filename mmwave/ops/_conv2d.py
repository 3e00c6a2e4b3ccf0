"""Convolutions, opaque in a graph of ``torch.compile`` with dynamic sizes.

There inductor (torch 2.13) fails on strides of maps around convolutions, and miscounts the output
size of strided ones.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .graphs import needs_opaque_op
from .overridable import overridable


@overridable
def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, ...] = (1, 1),
    padding: tuple[int, ...] = (0, 0),
    groups: int = 1,
) -> Tensor:
    """Return ``torch.nn.functional.conv2d``: (N, C_in, H, W) -> (N, C_out, H', W').

    Args:
        x: (N, C_in, H, W).
        weight: (C_out, C_in / groups, h, w).
        bias: (C_out,), or None for none.
        stride: of the kernel along both axes.
        padding: zeros added on both sides of each axis.
        groups: the number of groups of channels.
    """
    if needs_opaque_op(*x.shape):
        return _op(*_cast(x, weight, bias), list(stride), list(padding), groups)
    return F.conv2d(x, weight, bias, stride, padding, groups=groups)


def _cast(*tensors: Tensor | None) -> Iterator[Tensor | None]:
    """Cast as autocast, which does not handle custom ops, does for torch's own."""
    kind = next(t.device.type for t in tensors if t is not None)
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    for tensor in tensors:
        if dtype is None or tensor is None or tensor.dtype == torch.float64:
            yield tensor
        else:
            yield tensor.to(dtype)


@torch.library.custom_op('mmwave::conv2d', mutates_args=())
def _op(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    groups: int,
) -> Tensor:
    y = F.conv2d(x, weight, bias, stride, padding, groups=groups)
    return y.contiguous(memory_format=_format(x))


@_op.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: list[int],
    padding: list[int],
    groups: int,
) -> Tensor:
    sides = [
        (side + 2 * before - kernel + step) // step
        for side, kernel, step, before in zip(
            x.shape[2:], weight.shape[2:], stride, padding, strict=True
        )
    ]
    return _like(x, (x.shape[0], weight.shape[0], *sides), _format(x))


@torch.library.custom_op('mmwave::conv2d_backward', mutates_args=())
def _backward_op(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    groups: int,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of x, weight and bias; empty ones where they are not needed."""
    found = torch.ops.aten.convolution_backward(
        gradient.contiguous(memory_format=_format(x)),
        x,
        weight,
        [len(weight)],
        stride,
        padding,
        [1, 1],
        False,
        [0, 0],
        groups,
        needed,
    )
    none = x.new_empty(0)
    of_x, of_weight, of_bias = (none.clone() if t is None else t for t in found)
    if needed[0]:
        of_x = of_x.contiguous(memory_format=_format(x))
    return of_x, of_weight.contiguous(), of_bias


@_backward_op.register_fake
def _(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: list[int],
    padding: list[int],
    groups: int,
    needed: list[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    none = x.new_empty(0)
    return (
        _like(x, x.shape, _format(x)) if needed[0] else none,
        weight.new_empty(weight.shape) if needed[1] else none.clone(),
        weight.new_empty(len(weight)) if needed[2] else none.clone(),
    )


def _format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.stride(1) == 1 else torch.contiguous_format


def _like(x: Tensor, shape: tuple[int, ...], memory_format: torch.memory_format) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=memory_format)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])
    ctx.settings = inputs[3:]


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    needed = list(ctx.needs_input_grad[:3])
    found = _backward_op(gradient, *ctx.saved_tensors, *ctx.settings, needed)
    return *(g if n else None for g, n in zip(found, needed, strict=True)), None, None, None


_op.register_autograd(_differentiate, setup_context=_keep)
