"""Maps cut into windows and joined of them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .graphs import any_size, is_opaque, own_memory


def counts(size: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the windows that a map of ``size`` is cut into."""
    height, width = ((side + step - 1) // step for side, step in zip(size, window, strict=True))
    return height, width


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) -> (N, C, *size): zeros added, or positions cut off, below and on the right."""
    height, width = x.shape[2:]
    if not any_size(height, width, *size) and (height, width) == tuple(size):
        return x
    return F.pad(x, (0, size[1] - width, 0, size[0] - height))


def cut(x: Tensor, window: tuple[int, int], shape: tuple[int, int] | None = None) -> Tensor:
    """(N, C, H, W) -> windows (N * rows * columns, C, h, w), filled up with zeros.

    ``shape`` are rows and columns where they are known.
    """
    (n, c, *size), (h, w) = x.shape, window
    rows, columns = shape or counts((size[0], size[1]), window)
    if is_opaque(rows, columns):
        return _cut_op(x, h, w)
    x = resize(x, (rows * h, columns * w))
    if any_size(rows, columns):
        # One axis after the other, and never rows or columns as an axis of their own: graphs tell a
        # length of one from others, and a map has one window here and several there.
        x = _filled(x).view(n * c * rows, h, columns * w).transpose(1, 2)
        x = _filled(x).view(n, c, rows * columns * w * h).transpose(1, 2)
        return _filled(x).view(n * rows * columns, w, h, c).permute(0, 3, 2, 1)
    if h == w == 1 == n:
        # Views of windows of one position, and their gradients, look like channels_last but for the
        # first stride. Torch's batch norm (2.13) reads that one too, and its gradients are wrong.
        return x[0].flatten(1).t().contiguous()[:, :, None, None]
    x = x.reshape(n, c, rows, h, columns, w)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(n * rows * columns, c, h, w)


def join(windows: Tensor, size: tuple[int, int], shape: tuple[int, int] | None = None) -> Tensor:
    """Windows (N * rows * columns, C, h, w) -> the map (N, C, *size) that they were cut of."""
    _, c, h, w = windows.shape
    rows, columns = shape or counts(size, (h, w))
    if is_opaque(rows, columns):
        return _join_op(windows, *size)
    if any_size(rows, columns):  # as in cut
        n = windows.shape[0] // (rows * columns)
        x = _filled(windows.permute(0, 3, 2, 1)).view(n, rows * columns * w * h, c).transpose(1, 2)
        x = _filled(x).view(n * c * rows, columns * w, h).transpose(1, 2)
        x = _filled(x).view(n, c, rows * h, columns * w)
    else:
        x = windows.reshape(-1, rows, columns, c, h, w).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(-1, c, rows * h, columns * w)
        if h == w == 1 == x.shape[0]:
            x = x.contiguous()  # as in cut
    return resize(x, size)


def _filled(x: Tensor) -> Tensor:
    """All values in one row, without asking which axes have a length of one."""
    return x.clone(memory_format=torch.contiguous_format).flatten()


@torch.library.custom_op('mmwave::cut', mutates_args=())
def _cut_op(x: Tensor, h: int, w: int) -> Tensor:
    """:func:`cut` as one operation of a graph: a copy."""
    return own_memory(cut(x, (h, w)), x)


@_cut_op.register_fake
def _(x: Tensor, h: int, w: int) -> Tensor:
    n, c, height, width = x.shape
    rows, columns = counts((height, width), (h, w))
    return x.new_empty(n * rows * columns, c, h, w)


@torch.library.custom_op('mmwave::join', mutates_args=())
def _join_op(windows: Tensor, height: int, width: int) -> Tensor:
    """:func:`join` as one operation of a graph: a copy."""
    return own_memory(join(windows, (height, width)), windows)


@_join_op.register_fake
def _(windows: Tensor, height: int, width: int) -> Tensor:
    batch, c, h, w = windows.shape
    rows, columns = counts((height, width), (h, w))
    return windows.new_empty(batch // (rows * columns), c, height, width)


def _keep_size(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.size = inputs[0].shape[2:]


# What one fills up, the other cuts off: each is the other's adjoint.
_cut_op.register_autograd(
    lambda ctx, gradient: (_join_op(gradient, *ctx.size), None, None), setup_context=_keep_size
)
_join_op.register_autograd(
    lambda ctx, gradient: (_cut_op(gradient, *ctx.size), None, None), setup_context=_keep_size
)
