"""``axial_sample`` by whole rows: the channels of a group are read and written together."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ..graphs import is_transformed
from .gradients import axial_sample_gradients

CPU_CHUNK = 1 << 18
"""Elements of a map that are processed at a time on a CPU."""


def _padded_rows(x: Tensor, groups: int, dim: int) -> Tensor:
    """Return ((N, H, W, G), C / G), flat, of x with a zero before and after every line."""
    n, c, *size = x.shape
    size[dim - 2] += 2
    padded = x.new_empty(n, *size, c)
    length = x.shape[dim]
    padded.narrow(dim - 1, 0, 1).zero_()
    padded.narrow(dim - 1, 1, length).copy_(x.permute(0, 2, 3, 1))
    padded.narrow(dim - 1, length + 1, 1).zero_()
    return padded.view(-1, c // groups)


def _places(offsets: Tensor, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return flat indices of two padded rows for every position and group, and the second's share.

    Whatever is outside the map is one of the zeros around it.
    """
    n, groups, *sizes = offsets.shape
    size = sizes[dim - 2]
    offsets = offsets.permute(0, 2, 3, 1)
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
    steps = torch.arange(size, device=offsets.device, dtype=offsets.dtype)
    places = (offsets + steps.view([-1, 1, 1] if dim == 2 else [-1, 1])).contiguous()
    floor = places.floor()
    share = places.sub_(floor)
    floor = floor.nan_to_num_(-2.0).clamp_(-2, size)
    # Rows are numbered by image, row, column and group, in the padded map.
    h, w = sizes
    rows, columns = (h + 2, w) if dim == 2 else (h, w + 2)
    number = torch.arange(n * rows * columns * groups, device=offsets.device)
    first = number.view(n, rows, columns, groups).narrow(dim - 1, 0, 1)
    step = (columns if dim == 2 else 1) * groups
    lower = floor.clamp(min=-1).long().add_(1).mul_(step).add_(first)
    upper = floor.add_(1).clamp_(max=size).long().add_(1).mul_(step).add_(first)
    return lower.view(-1), upper.view(-1), share.view(-1, 1)


def _parts(dim: int, *maps: Tensor) -> Iterator[list[Tensor]]:
    """Return the maps in parts of whole lines, whose rows a CPU's cache holds."""
    n, c, h, w = maps[0].shape
    across = 5 - dim
    most = CPU_CHUNK if maps[0].device.type == 'cpu' else maps[0].numel()
    images = max(1, min(n, most // max(1, c * h * w)))
    lines = max(1, min((w, h)[dim - 2], most // max(1, images * c * (h, w)[dim - 2])))
    for start in range(0, n, images):
        some = [x[start : start + images] for x in maps]
        for first in range(0, (w, h)[dim - 2], lines):
            count = min(lines, (w, h)[dim - 2] - first)
            yield [x.narrow(across, first, count) for x in some]


def _sample(result: Tensor, x: Tensor, offsets: Tensor, dim: int) -> None:
    rows = _padded_rows(x, offsets.shape[1], dim)
    lower, upper, share = _places(offsets, dim)
    share = share.to(x.dtype)
    sums = rows.index_select(0, lower).mul_(1 - share)
    sums.addcmul_(rows.index_select(0, upper), share)
    result.permute(0, 2, 3, 1).copy_(sums.view(_last(x)))


def _unsample(
    to_x: Tensor, to_offsets: Tensor, gradient: Tensor, x: Tensor, offsets: Tensor, dim: int
) -> None:
    groups, length = offsets.shape[1], x.shape[dim]
    lower, upper, share = _places(offsets, dim)
    rows = _padded_rows(x, groups, dim).to(share.dtype)
    pull = gradient.permute(0, 2, 3, 1).reshape(-1, rows.shape[1]).to(share.dtype)
    difference = rows.index_select(0, upper).sub_(rows.index_select(0, lower)).mul_(pull)
    moved = difference @ difference.new_ones(rows.shape[1])
    to_offsets.permute(0, 2, 3, 1).copy_(moved.view(_last(offsets)))
    sums = torch.zeros_like(rows)
    sums.scatter_add_(0, upper[:, None].expand_as(pull), pull * share)
    sums.scatter_add_(0, lower[:, None].expand_as(pull), pull * (1 - share))
    n, h, w, c = _last(x)
    padded = sums.view((n, h + 2, w, c) if dim == 2 else (n, h, w + 2, c))
    to_x.permute(0, 2, 3, 1).copy_(padded.narrow(dim - 1, 1, length))


def _last(x: Tensor) -> tuple[int, int, int, int]:
    n, c, h, w = x.shape
    return n, h, w, c


class _Sample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, offsets: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(x, offsets)
        ctx.dim = dim
        result = x.new_empty(_last(x)).permute(0, 3, 1, 2)
        for part in _parts(dim, result, x, offsets):
            _sample(*part, dim)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple:  # type: ignore[override]
        x, offsets = ctx.saved_tensors
        if torch.is_grad_enabled():  # create_graph=True
            return *axial_sample_gradients(x, offsets, gradient, ctx.dim), None
        to_x, to_offsets = (t.new_empty(_last(t)).permute(0, 3, 1, 2) for t in (x, offsets))
        for part in _parts(ctx.dim, to_x, to_offsets, gradient, x, offsets):
            _unsample(*part, ctx.dim)
        return to_x, to_offsets, None


def axial_sample_rows(x: Tensor, offsets: Tensor, dim: int) -> Tensor:
    """See :func:`mmwave.ops.axial_sample`."""
    return _Sample.apply(x, offsets, dim)


def _unsupported(x: Tensor, offsets: Tensor, dim: int) -> str:
    if torch.compiler.is_compiling() or torch.jit.is_tracing():  # type: ignore
        return 'a graph is being traced: compilers fuse the definition'
    if is_transformed() or forward_ad._current_level >= 0:
        return 'a transform or forward-mode AD is active'
    return ''


axial_sample_rows.unsupported = _unsupported  # type: ignore[attr-defined]
