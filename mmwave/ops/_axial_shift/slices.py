"""``axial_shift`` by slices copied into an uninitialised map, without masks."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..graphs import is_transformed

MAX_SLICES = 16
"""Number of slices from which the definition is as fast."""
Piece = tuple[int, int | None, int, int]
"""First and last channel, step between channels, and their offset."""


def pieces_of(offsets: Sequence[int]) -> list[Piece]:
    """Return the fewest slices of channels with one offset each: runs, or strides of a period."""
    runs: list[Piece] = []
    start = 0
    for offset, group in groupby(offsets):
        stop = start + len(list(group))
        runs.append((start, stop, 1, offset))
        start = stop
    for period in range(1, min(len(runs), MAX_SLICES)):
        if all(a == b for a, b in zip(offsets, offsets[period:], strict=False)):
            return [(k, None, period, offsets[k]) for k in range(period)]
    return runs


class _Shift(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, pieces: list[Piece], dim: int) -> Tensor:
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
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        back = [(*channels, -offset) for *channels, offset in ctx.pieces]
        return _Shift.apply(gradient, back, ctx.dim), None, None


def axial_shift_slices(x: Tensor, offsets: tuple[int, ...], dim: int) -> Tensor:
    """See :func:`mmwave.ops.axial_shift`."""
    return _Shift.apply(x, pieces_of(offsets), dim)


def _unsupported(x: Tensor, offsets: tuple[int, ...], dim: int) -> str:
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore
        return 'a graph is being traced: compilers fuse the definition'
    if is_transformed() or forward_ad._current_level >= 0:
        return 'a transform or forward-mode AD is active'
    if len(pieces_of(offsets)) > MAX_SLICES:
        return f'the offsets are no more than {MAX_SLICES} slices of channels'
    return ''


axial_shift_slices.unsupported = _unsupported  # type: ignore[attr-defined]
