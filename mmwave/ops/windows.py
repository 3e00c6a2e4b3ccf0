"""Maps cut into windows, and windows joined to maps."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .graphs import is_dynamic, needs_opaque_op, static_size, unaliased


def counts(size: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """Return rows and columns of the windows that a map of ``size`` is cut into."""
    height, width = ((side + step - 1) // step for side, step in zip(size, window, strict=True))
    return height, width


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Pad with zeros or crop, below and on the right: (N, C, H, W) -> (N, C, *size)."""
    height, width = x.shape[2:]
    if not is_dynamic(height, width, *size) and (height, width) == tuple(size):
        return x
    return F.pad(x, (0, size[1] - width, 0, size[0] - height))


def pad_to_multiples(x: Tensor, step: int) -> Tensor:
    """Pad (N, C, H, W) with zeros, below and on the right, to multiples of ``step``."""
    rows, columns = counts((x.shape[2], x.shape[3]), (step, step))
    return resize(x, (step * rows, step * columns))


def cut(x: Tensor, window: tuple[int, int], shape: tuple[int, int] | None = None) -> Tensor:
    """Cut (N, C, H, W) into windows (N * rows * columns, C, h, w), padded with zeros.

    ``shape`` is (rows, columns) where it is known.
    """
    (n, c, *size), (h, w) = x.shape, window
    rows, columns = shape or counts((size[0], size[1]), window)
    if needs_opaque_op(rows, columns):
        return _cut_op(x, h, w)
    x = resize(x, (rows * h, columns * w))
    if is_dynamic(rows, columns):
        # One axis after the other, and never rows or columns as an axis of their own: tracing
        # specialises sizes of one, and the number of windows varies from one upwards.
        x = flat(x).view(n * c * rows, h, columns * w).transpose(1, 2)
        x = flat(x).view(n, c, rows * columns * w * h).transpose(1, 2)
        return flat(x).view(n * rows * columns, w, h, c).permute(0, 3, 2, 1)
    if h == w == 1 == n:
        # Views of windows of one position, and their gradients, look like channels_last except for
        # the first stride. Torch's batch norm (2.13) reads it, and its gradients are wrong.
        return x[0].flatten(1).t().contiguous()[:, :, None, None]
    x = x.reshape(n, c, rows, h, columns, w)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(n * rows * columns, c, h, w)


def join(windows: Tensor, size: tuple[int, int], shape: tuple[int, int] | None = None) -> Tensor:
    """Join windows (N * rows * columns, C, h, w) to the map (N, C, *size) they were cut from."""
    _, c, h, w = windows.shape
    rows, columns = shape or counts(size, (h, w))
    if needs_opaque_op(rows, columns):
        return _join_op(windows, *size)
    if is_dynamic(rows, columns):  # as in cut
        n = windows.shape[0] // (rows * columns)
        x = flat(windows.permute(0, 3, 2, 1)).view(n, rows * columns * w * h, c).transpose(1, 2)
        x = flat(x).view(n * c * rows, columns * w, h).transpose(1, 2)
        x = flat(x).view(n, c, rows * h, columns * w)
    else:
        x = windows.reshape(-1, rows, columns, c, h, w).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(-1, c, rows * h, columns * w)
        if h == w == 1 == x.shape[0]:
            x = x.contiguous()  # as in cut
    return resize(x, size)


def spans(side: int, step: int) -> list[tuple[int, int]]:
    """Cut an axis into windows whose sides come as near to ``step`` positions as they can.

    A graph of ``torch.compile`` holds for this ``side`` alone.

    Returns:
        (windows, their side), sides as equal as can be: one or two, the larger first.
    """
    side = static_size(side)
    count = max(side // step, 1)
    if side / count - step > step - side / (count + 1):  # one more would be nearer
        count += 1
    short, longer = side // count, side % count
    return [(n, s) for n, s in ((longer, short + 1), (count - longer, short)) if n]


def cuts(side: int, step: int) -> list[tuple[int, int]]:
    """Windows of ``step`` positions along an axis, and one of what is left: as :func:`spans`."""
    full, rest = divmod(side, step)
    return [(n, s) for n, s in ((full, step), (1, rest)) if n and s]


def by_parts(
    x: Tensor,
    rows: Sequence[tuple[int, int]],
    columns: Sequence[tuple[int, int]],
    mix: Callable[[Tensor, tuple[int, int]], Tensor],
) -> Tensor:
    """Call ``mix`` on the parts of a map (N, H, W, C) whose windows are of one size.

    Args:
        x: the map.
        rows: (windows, their height), from the top down.
        columns: (windows, their width), from the left.
        mix: maps a part and the size of its windows to as large a part.
    """
    bands = []
    strips = x.split([n * h for n, h in rows], dim=1)  # type: ignore[no-untyped-call]
    for (_, h), band in zip(rows, strips, strict=True):
        parts = band.split([n * w for n, w in columns], dim=2)
        done = [mix(part, (h, w)) for (_, w), part in zip(columns, parts, strict=True)]
        bands.append(done[0] if len(done) == 1 else torch.cat(done, dim=2))
    return bands[0] if len(bands) == 1 else torch.cat(bands, dim=1)


def flat(x: Tensor) -> Tensor:
    """Return all values in one row, without branching on sizes of one."""
    return x.clone(memory_format=torch.contiguous_format).flatten()


@torch.library.custom_op('mmwave::cut', mutates_args=())
def _cut_op(x: Tensor, h: int, w: int) -> Tensor:
    """Compute :func:`cut` as a custom op: a copy."""
    return unaliased(cut(x, (h, w)), x)


@_cut_op.register_fake
def _(x: Tensor, h: int, w: int) -> Tensor:
    n, c, height, width = x.shape
    rows, columns = counts((height, width), (h, w))
    return x.new_empty(n * rows * columns, c, h, w)


@torch.library.custom_op('mmwave::join', mutates_args=())
def _join_op(windows: Tensor, height: int, width: int) -> Tensor:
    """Compute :func:`join` as a custom op: a copy."""
    return unaliased(join(windows, (height, width)), windows)


@_join_op.register_fake
def _(windows: Tensor, height: int, width: int) -> Tensor:
    batch, c, h, w = windows.shape
    rows, columns = counts((height, width), (h, w))
    return windows.new_empty(batch // (rows * columns), c, height, width)


def _keep_size(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.size = inputs[0].shape[2:]


# One pads where the other crops: each is the other's adjoint.
_cut_op.register_autograd(
    lambda ctx, gradient: (_join_op(gradient, *ctx.size), None, None), setup_context=_keep_size
)
_join_op.register_autograd(
    lambda ctx, gradient: (_cut_op(gradient, *ctx.size), None, None), setup_context=_keep_size
)
