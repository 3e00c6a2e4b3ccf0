"""Maps cut into the windows that a layer was trained on, whatever the image's size.

A map (N, C, H, W) is cut into windows of h x w positions, row by row, the last ones filled up with
zeros. Two grids do the same in two ways: :class:`MapGrid` has every block cut the map and join it
again; :class:`WindowGrid` is for a map that was cut once, on the image, and stays in windows, which
are a longer batch to all layers that look at one position at a time. Blocks are written against
what both have.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.structures import SizeConstraint

from .mean import mean_over


def any_size(*sides: int) -> bool:
    """Whether a graph is being recorded that is to hold for other lengths of ``sides`` too.

    Without any: whether a graph is being recorded. Questions about a length that is left open make
    ``torch.compile`` record one more graph for the other answer, so none is asked where this holds.
    """
    if torch.jit.is_tracing():
        return True
    if not torch.compiler.is_compiling():  # that is so in torch.export as well
        return False
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return len(sides) == 0 or any(not has_static_value(side) for side in sides)


def one_size(side: int) -> int:
    """``side`` as the number that a graph of ``torch.compile`` holds for: others need their own."""
    if not torch.compiler.is_compiling():
        return side
    from torch.fx.experimental.symbolic_shapes import guard_scalar

    return guard_scalar(side)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) -> (N, C, *size): zeros added, or positions cut off, below and on the right."""
    height, width = x.shape[2:]
    if not any_size(height, width, *size) and (height, width) == tuple(size):
        return x
    return F.pad(x, (0, size[1] - width, 0, size[0] - height))


def strided_padding(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> list[int]:
    """What ``F.pad`` puts around the last two axes for strided kernels to fill them to the end.

    A convolution with ``padding`` leaves over what its last step does not reach. torch.compile's
    inductor (torch 2.13) loses count there where lengths are left open: it is cut off before.
    """
    pads: list[int] = []
    for side, k, step, before in zip(size, kernel, stride, padding, strict=True):
        outputs = (side + 2 * before - k) // step + 1
        pads = [before, (outputs - 1) * step + k - before - side, *pads]
    return pads


def channels_first(x: Tensor) -> Tensor:
    """An output (N, H, W, C) as (N, C, H, W): a view, in a graph for any size a copy.

    torch.compile's inductor (torch 2.13) fails where it compares strides of such a view whose sides
    come of convolutions.
    """
    x = x.permute(0, 3, 1, 2)
    return x.contiguous() if torch.compiler.is_compiling() and any_size(*x.shape[2:]) else x


def padded(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
    """``x`` with what is left of the padding of ``conv``: none in a graph for any size."""
    size = x.shape[2:]
    if not torch.compiler.is_compiling() or not any_size(*size):
        return x, conv.padding
    return F.pad(x, strided_padding(size, conv.kernel_size, conv.stride, conv.padding)), (0, 0)


def convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """``conv(x)``, in a graph for any size with the padding in front of it."""
    in_front, padding = padded(conv, x)
    if in_front is x:
        return conv(x)  # with the hooks that it may have
    return F.conv2d(in_front, conv.weight, conv.bias, conv.stride, padding, groups=conv.groups)


def counts(size: tuple[int, int], window: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of the windows that a map of ``size`` is cut into."""
    height, width = ((side + step - 1) // step for side, step in zip(size, window, strict=True))
    return height, width


def filled_sizes(strides: Sequence[int], windows: Sequence[tuple[int, int]]) -> SizeConstraint:
    """Image sizes whose maps are filled by windows, given strides and windows of all stages."""
    height, width = (
        math.lcm(*(s * window[axis] for s, window in zip(strides, windows, strict=True)))
        for axis in (0, 1)
    )
    return SizeConstraint(divisors=(height, width))


def cut(x: Tensor, window: tuple[int, int], shape: tuple[int, int] | None = None) -> Tensor:
    """(N, C, H, W) -> windows (N * rows * columns, C, h, w), filled up with zeros.

    ``shape`` are rows and columns where they are known.
    """
    (n, c, *size), (h, w) = x.shape, window
    rows, columns = shape or counts((size[0], size[1]), window)
    x = resize(x, (rows * h, columns * w))
    if any_size(rows, columns):
        # One axis after the other, and never rows or columns as an axis of their own: graphs tell a
        # length of one from others, and a map has one window here and several there.
        x = _filled(x).view(n * c * rows, h, columns * w).transpose(1, 2)
        x = _filled(x).view(n, c, rows * columns * w * h).transpose(1, 2)
        return _filled(x).view(n * rows * columns, w, h, c).permute(0, 3, 2, 1)
    x = x.reshape(n, c, rows, h, columns, w)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(n * rows * columns, c, h, w)


def join(windows: Tensor, size: tuple[int, int], shape: tuple[int, int] | None = None) -> Tensor:
    """Windows (N * rows * columns, C, h, w) -> the map (N, C, *size) that they were cut of."""
    _, c, h, w = windows.shape
    rows, columns = shape or counts(size, (h, w))
    if any_size(rows, columns):  # as in cut
        n = windows.shape[0] // (rows * columns)
        x = _filled(windows.permute(0, 3, 2, 1)).view(n, rows * columns * w * h, c).transpose(1, 2)
        x = _filled(x).view(n * c * rows, columns * w, h).transpose(1, 2)
        x = _filled(x).view(n, c, rows * h, columns * w)
    else:
        x = windows.reshape(-1, rows, columns, c, h, w).permute(0, 3, 1, 4, 2, 5)
        x = x.reshape(-1, c, rows * h, columns * w)
    return resize(x, size)


def _filled(x: Tensor) -> Tensor:
    """All values in one row, without asking which axes have a length of one."""
    return x.clone(memory_format=torch.contiguous_format).flatten()


@dataclass(frozen=True)
class MapGrid:
    """How blocks see a stage's map (N, C, H, W) that each of them cuts itself: the definition.

    Attributes:
        size: H and W.
        window: h and w.
        shape: rows and columns of windows.
    """

    size: tuple[int, int]
    window: tuple[int, int]
    shape: tuple[int, int]

    @property
    def count(self) -> int:
        """T, windows of a map."""
        return self.shape[0] * self.shape[1]

    def windows(self, x: Tensor) -> Tensor:
        """The map's windows (N * T, C, h, w), zero outside the map."""
        return cut(x, self.window, self.shape)

    def back(self, windows: Tensor) -> Tensor:
        """Windows -> the stage's own form."""
        return join(windows, self.size, self.shape)

    def mean(self, windows: Tensor) -> Tensor:
        """Mean over the positions of the map, from windows that are zero outside: (N, C)."""
        # Means of windows, then of their means: in half precision a sum over a map may overflow.
        means = mean_over(windows, 2, 3).unflatten(0, (-1, self.count)).mean(dim=1)
        filled = self.count * self.window[0] * self.window[1]
        return means * (filled / (self.size[0] * self.size[1]))

    def spread(self, factors: Tensor) -> Tensor:
        """Factors (N, C) of whole images, to multiply the stage's own form with."""
        return factors[:, :, None, None]

    def even(self, x: Tensor) -> Tensor:
        """The stage's own form, made ready for a 2 x 2 convolution of stride 2."""
        rows, columns = counts(self.size, (2, 2))
        return resize(x, (2 * rows, 2 * columns))

    def whole(self, x: Tensor) -> Tensor:
        """The stage's own form -> (N, C, H, W)."""
        return x


@dataclass(frozen=True)
class WindowGrid(MapGrid):
    """The same for a stage whose own form are its windows (N * T, C, h, w).

    Attributes:
        mask: (T, 1, h, w), 1 on the map and 0 outside; None where the windows fill the map.
    """

    mask: Tensor | None = None

    def windows(self, x: Tensor) -> Tensor:
        if self.mask is None:
            return x
        return (x.unflatten(0, (-1, self.count)) * self.mask.to(x)).flatten(0, 1)

    def back(self, windows: Tensor) -> Tensor:
        return windows

    def spread(self, factors: Tensor) -> Tensor:
        return factors.repeat_interleave(self.count, dim=0)[:, :, None, None]

    def even(self, x: Tensor) -> Tensor:
        return self.windows(x)

    def whole(self, x: Tensor) -> Tensor:
        return join(x, self.size, self.shape)


def mask_of(
    size: tuple[int, int], window: tuple[int, int], shape: tuple[int, int], like: Tensor
) -> Tensor:
    """(T, 1, h, w) of 1 where the windows of a map lie on it and 0 outside, as ``like``."""
    channels = 2 if any_size(*size) else 1  # for cut to have more than rows on an axis
    return cut(like.new_ones(1, channels, *size), window, shape)[:, :1]
