"""``spatial_fc`` on the CPU by oneDNN: a product for each matrix.

In a graph of ``torch.compile`` it is a custom op, as :func:`mmwave.ops.linear` is.
"""

from typing import Any

import torch
from torch import Tensor

from .._linear.onednn import product, product_transposed
from .._linear.onednn import unsupported as _unsupported
from ..graphs import needs_grad
from .reference import spatial_fc_reference

MIN_ONEDNN_MACS = 2**24
"""Multiply-accumulates of one matrix from which its own product is faster than a batched one."""


def unsupported(x: Tensor, weight: Tensor, *bias: Tensor) -> str:
    """Return the reason oneDNN cannot multiply these tensors here; '' if it can."""
    reason = _unsupported(x, weight, *bias)
    if reason or x.dtype != torch.float32:
        return reason or "torch's own batched products of bfloat16 are oneDNN's"
    # Not checked while compiling, where sizes may be dynamic: the custom op checks when it runs.
    return '' if torch.compiler.is_compiling() else _too_small(x, weight)


def _too_small(x: Tensor, weight: Tensor) -> str:
    work = x.shape[0] * x.shape[1] // weight.shape[0] * weight[0].numel()
    if work >= MIN_ONEDNN_MACS:
        return ''
    return f'a matrix has {work} multiply-accumulates, under {MIN_ONEDNN_MACS}'


def spatial_fc_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See :func:`mmwave.ops.spatial_fc`."""
    if torch.compiler.is_compiling():
        return _op(x, weight, bias)
    if not needs_grad(x, weight, bias):
        return _mixed(x, weight, bias)
    mixed: Tensor = _SpatialFC.apply(x, weight, bias)
    return mixed


spatial_fc_onednn.unsupported = unsupported  # type: ignore[attr-defined]


def _mixed(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    (n, channels, positions), (sets, outputs) = x.shape, weight.shape[:2]
    if sets == 1 and x.stride(1) == 1:
        # The channels are contiguous: multiply the matrix by the positions from the left.
        mixed = product(weight[0], _by_position(x).t())
        mixed = mixed if bias is None else mixed.add_(bias[0, :, None])
        return mixed.view(outputs, n, channels).permute(1, 2, 0)
    rows = x.reshape(-1, sets, positions).unbind(1)
    biases = [None] * sets if bias is None else bias.unbind(0)
    parts = [product(*each) for each in zip(rows, weight.unbind(0), biases, strict=True)]
    if sets == 1:
        return parts[0].view(n, channels, outputs)
    if sets == channels and x.stride(0) < x.stride(1):  # as x: channels are the outer axis
        return torch.stack(parts).transpose(0, 1)
    return torch.stack(parts, dim=1).view(n, channels, outputs)


def _by_set(x: Tensor, sets: int) -> Tensor:
    """(N, C, P) -> (N, C / S, S, P)."""
    return x.unflatten(1, (-1, sets))  # type: ignore[no-untyped-call]


def _by_position(x: Tensor) -> Tensor:
    """(N, C, P) -> (P, N * C)."""
    return x.permute(2, 0, 1).flatten(1)


class _SpatialFC(torch.autograd.Function):
    """Save the inputs for backward, not the copies that products make of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _mixed(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        sets = len(weight)
        if sets == 1 and gradient.stride(1) == 1:
            # Copy once to the layout that all three gradients read.
            rows = _by_position(gradient)
            gradient = rows.unflatten(1, gradient.shape[:2]).permute(1, 2, 0)  # type: ignore[no-untyped-call]
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = spatial_fc_onednn(gradient, weight.transpose(1, 2))
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(gradient, x, sets)
        if ctx.needs_input_grad[2]:
            of_bias = _by_set(gradient, sets).sum((0, 1))
        return of_x, of_weight, of_bias


def _of_weight(gradient: Tensor, x: Tensor, sets: int) -> Tensor:
    """Return the gradient of the matrices, (S, Q, P)."""
    maps = [_by_set(t, sets) for t in (gradient, x)]
    pairs = [[_by_position(t[:, :, i]) for t in maps] for i in range(sets)]
    parts = [product_transposed(g, x) for g, x in pairs]
    return torch.stack(parts) if sets > 1 else parts[0][None]


@torch.library.custom_op('mmwave::spatial_fc', mutates_args=(), device_types='cpu')
def _op(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute :func:`_mixed` as a custom op, which sees the actual sizes only when it runs."""
    mix = spatial_fc_reference if _too_small(x, weight) else _mixed
    like = _empty(x, weight)
    mixed = mix(x, weight, bias)
    return mixed if mixed.stride() == like.stride() else like.copy_(mixed)


@_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return _empty(x, weight)


def _empty(x: Tensor, weight: Tensor) -> Tensor:
    """Return an uninitialised result with the strides of :func:`_mixed`'s."""
    (n, channels, _), (sets, outputs, _) = x.shape, weight.shape
    if sets == 1 and x.stride(1) == 1:
        return x.new_empty(outputs, n, channels).permute(1, 2, 0)
    if 1 < sets == channels and x.stride(0) < x.stride(1):
        return x.new_empty(channels, n, outputs).transpose(0, 1)
    return x.new_empty(n, channels, outputs)


@torch.library.custom_op('mmwave::spatial_fc_backward', mutates_args=(), device_types='cpu')
def _of_weight_op(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Compute :func:`_of_weight` as a custom op."""
    sets = len(weight)
    if not _too_small(x, weight):
        return _of_weight(gradient, x, sets).contiguous()
    rows, columns = (_by_set(t, sets).permute(2, 3, 0, 1).flatten(2) for t in (gradient, x))
    return rows @ columns.transpose(1, 2)


@_of_weight_op.register_fake
def _(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return weight.new_empty(weight.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    of_x = of_weight = of_bias = None
    if ctx.needs_input_grad[0]:
        of_x = _op(gradient, weight.transpose(1, 2), None)
    if ctx.needs_input_grad[1]:
        of_weight = _of_weight_op(gradient, x, weight)
    if ctx.needs_input_grad[2]:
        of_bias = _by_set(gradient, len(weight)).sum((0, 1))
    return of_x, of_weight, of_bias


_op.register_autograd(_differentiate, setup_context=_keep)
