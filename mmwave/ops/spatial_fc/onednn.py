"""``spatial_fc`` on the CPU by oneDNN: a product for each matrix."""

from typing import Any

import torch
from torch import Tensor

from ..linear.onednn import crossed, product
from ..linear.onednn import unsupported as _unsupported

LEAST = 2**24
"""Multiply-accumulates of one matrix from which its own product is faster than a batched one."""


def unsupported(x: Tensor, weight: Tensor, *bias: Tensor) -> str:
    """Why oneDNN does not multiply these tensors here; empty where it does."""
    reason = _unsupported(x, weight, *bias)
    if reason:
        return reason
    work = x.shape[0] * x.shape[1] // weight.shape[0] * weight[0].numel()
    return '' if work >= LEAST else f'a matrix has {work} multiply-accumulates, under {LEAST}'


def spatial_fc_onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See :func:`mmwave.ops.spatial_fc`."""
    recorded = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    y = _SpatialFC.apply(x, weight) if recorded else _mixed(x, weight)
    if bias is None:
        return y
    offset = bias.repeat(x.shape[1] // weight.shape[0], 1)
    return y + offset if recorded or bias.requires_grad else y.add_(offset)


spatial_fc_onednn.unsupported = unsupported  # type: ignore[attr-defined]


def _mixed(x: Tensor, weight: Tensor) -> Tensor:
    (n, channels, positions), (sets, outputs) = x.shape, weight.shape[:2]
    if sets == 1 and x.stride(1) == 1:
        # Channels lie side by side: the matrix is multiplied by the positions from the left.
        mixed = product(weight[0], _by_position(x).t())
        return mixed.view(outputs, n, channels).permute(1, 2, 0)
    rows = x.reshape(-1, sets, positions).unbind(1)
    parts = [product(r, w) for r, w in zip(rows, weight.unbind(0), strict=True)]
    return (torch.stack(parts, dim=1) if sets > 1 else parts[0]).view(n, channels, outputs)


def _by_position(x: Tensor) -> Tensor:
    """(N, C, P) -> (P, N * C)."""
    return x.permute(2, 0, 1).flatten(1)


class _SpatialFC(torch.autograd.Function):
    """It keeps what it is given, and no copy of it that a product needs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _mixed(x, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        sets, of_x, of_weight = len(weight), None, None
        if ctx.needs_input_grad[0]:
            of_x = spatial_fc_onednn(gradient, weight.transpose(1, 2))
        if ctx.needs_input_grad[1]:
            pairs = [
                [_by_position(t.unflatten(1, (-1, sets))[:, :, i]) for t in (gradient, x)]
                for i in range(sets)
            ]
            of_weight = torch.stack([crossed(g, x) for g, x in pairs])
        return of_x, of_weight
