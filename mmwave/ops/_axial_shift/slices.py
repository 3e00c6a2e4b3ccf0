"""``axial_shift`` by slices copied into an uninitialised map, without masks."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..graphs import is_transformed
from .channels import MAX_SLICES, Slice, slices_of


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pieces: list[Slice], dim: int) -> Tensor:
        ctx.pieces, ctx.dim = pieces, dim
        size = x.shape[dim]
        result = torch.empty_like(x)
        for start, stop, step, offset in pieces:
            source, target = x[:, start:stop:step], result[:, start:stop:step]
            offset = max(-size, min(offset, size))
            left = size - abs(offset)
            target.narrow(dim, max(-offset, 0), left).copy_(
                source.narrow(dim, max(offset, 0), left)
            )
            if offset:
                target.narrow(dim, left if offset > 0 else 0, abs(offset)).zero_()
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        back = [(*channels, -offset) for *channels, offset in ctx.pieces]
        return _Shift.apply(gradient, back, ctx.dim), None, None


def axial_shift_slices(x: Tensor, offsets: tuple[int, ...], dim: int) -> Tensor:
    """See :func:`mmwave.ops.axial_shift`."""
    return _Shift.apply(x, slices_of(offsets), dim)


def _unsupported(x: Tensor, offsets: tuple[int, ...], dim: int) -> str:
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore
        return 'a graph is being traced: compilers fuse the definition'
    if is_transformed() or forward_ad._current_level >= 0:
        return 'a transform or forward-mode AD is active'
    if len(slices_of(offsets)) > MAX_SLICES:
        return f'the offsets are no more than {MAX_SLICES} slices of channels'
    return ''


axial_shift_slices.unsupported = _unsupported  # type: ignore[attr-defined]
