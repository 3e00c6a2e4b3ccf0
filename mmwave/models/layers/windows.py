"""Maps cut into the windows that a layer was trained on, whatever the image's size.

A map (N, C, H, W) is cut into windows of h x w positions, row by row, the last ones filled up with
zeros. Two grids do the same in two ways: with :class:`MapGrid` every block cuts the map and joins
it again; :class:`WindowGrid` is for a map that was cut once, on the image, and stays in windows,
which are a longer batch to all layers that look at one position at a time. Blocks are written
against what both have.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmwave.ops.graphs import is_dynamic
from mmwave.ops.mean import mean_over
from mmwave.ops.windows import counts, cut, flat, join, resize
from mmwave.structures import SizeConstraint

Size = tuple[int, int]
"""Height and width."""


def filled_sizes(strides: Sequence[int], windows: Sequence[Size]) -> SizeConstraint:
    """Image sizes whose maps are filled by windows, given strides and windows of all stages."""
    height, width = (
        math.lcm(*(s * window[axis] for s, window in zip(strides, windows, strict=True)))
        for axis in (0, 1)
    )
    return SizeConstraint(divisors=(height, width))


def is_filled(size: Sequence[int], window: Size) -> bool:
    """Whether windows fill a map, or an image, of this size.

    A graph that is to hold for every size is built for sizes that need filling.
    """
    return not is_dynamic(*size) and not any(s % w for s, w in zip(size, window, strict=True))


def stage_sizes(image: Sequence[int], strides: Sequence[int]) -> list[Size]:
    """H and W of the map of every stage, given its stride."""
    sizes, size, before = [], (image[0], image[1]), 1
    for stride in strides:
        if stride != before:
            # Of the size before, as convolutions do: to torch.compile it is the same number.
            size, before = counts(size, (stride // before, stride // before)), stride
        sizes.append(size)
    return sizes


def masked(windows: Tensor, mask: Tensor, count: int) -> Tensor:
    """Windows (N * T, ...) with zeros where their mask of :func:`mask_of` is zero.

    Args:
        windows: of N maps.
        mask: as a graph of dynamic sizes has it, or of one map.
        count: T, windows of a map.
    """
    if is_dynamic(count):
        return windows * mask.to(windows)
    return (windows.unflatten(0, (-1, count)) * mask.to(windows)).flatten(0, 1)


def repeated(factors: Tensor, count: int) -> Tensor:
    """Rows (N, C) of maps for each of their windows: (N * T, C); ``count`` is T."""
    if not is_dynamic(count):
        return factors.repeat_interleave(count, dim=0)
    rows = torch.arange(factors.shape[0] * count, device=factors.device)
    return factors.index_select(0, rows // count)


def mean_of_windows(
    windows: Tensor, axes: Size, *, size: Size, window: Size, shape: Size
) -> Tensor:
    """Mean over the positions of maps, from their windows: (N * T, ...) -> (N, C).

    Args:
        windows: zero outside the map.
        axes: those of h and w.
        size: H and W of the map.
        window: h and w.
        shape: rows and columns of windows.
    """
    count = shape[0] * shape[1]
    filled = count * window[0] * window[1]
    # Means of windows, then of their means: in half precision a sum over a map may overflow.
    if is_dynamic(count):
        # Windows are no axis of their own, see mmwave.ops.windows.cut: a graph would hold for one
        # window alone or for several.
        lines = mean_over(windows, axes[0]).movedim(axes[1] - 1, 1)  # (N * T, w, C)
        rows = windows.shape[0] // count
        lines = flat(lines).view(rows, count * window[1], lines.shape[2])
        means = lines.mean(dim=1)
    else:
        means = mean_over(windows, *axes).unflatten(0, (-1, count)).mean(dim=1)
    return means * (filled / (size[0] * size[1]))


@dataclass(frozen=True)
class Grid:
    """What the grids of all forms of a stage's map have in common.

    Attributes:
        size: H and W of the map.
        window: h and w, the positions that layers were trained on.
    """

    size: Size
    window: Size

    count = 1
    """Rows of the batch that an image is, in the stage's own form."""

    def spread(self, factors: Tensor) -> Tensor:
        """Factors (N, C) of whole images, to multiply the stage's own form with."""
        raise NotImplementedError

    def dropped(self, x: Tensor, drop_path: nn.Module | None) -> Tensor:
        """``x`` with all of an image dropped or kept, by a module that drops rows of a batch."""
        if drop_path is None or not drop_path.training:
            return x
        return x * self.spread(drop_path(x.new_ones(x.shape[0] // self.count, 1)))


@dataclass(frozen=True)
class MapGrid(Grid):
    """How blocks see a stage's map (N, C, H, W) that each of them cuts itself: the definition.

    Attributes:
        shape: rows and columns of windows.
    """

    shape: Size

    def windows(self, x: Tensor) -> Tensor:
        """The map's windows (N * T, C, h, w), zero outside the map."""
        return cut(x, self.window, self.shape)

    def from_windows(self, windows: Tensor) -> Tensor:
        """Windows -> the stage's own form."""
        return join(windows, self.size, self.shape)

    def mean(self, windows: Tensor) -> Tensor:
        """Mean over the positions of the map, from windows that are zero outside: (N, C)."""
        return mean_of_windows(
            windows, (2, 3), size=self.size, window=self.window, shape=self.shape
        )

    def spread(self, factors: Tensor) -> Tensor:
        return factors[:, :, None, None]

    def pad_even(self, x: Tensor) -> Tensor:
        """The stage's own form, made ready for a 2 x 2 convolution of stride 2."""
        rows, columns = counts(self.size, (2, 2))
        return resize(x, (2 * rows, 2 * columns))

    def to_map(self, x: Tensor) -> Tensor:
        """The stage's own form -> (N, C, H, W)."""
        return x


@dataclass(frozen=True)
class WindowGrid(MapGrid):
    """The same for a stage whose own form are its windows (N * T, C, h, w).

    Attributes:
        mask: of :func:`mask_of`; None where the windows fill the map.
    """

    mask: Tensor | None = None

    @property
    def count(self) -> int:  # type: ignore[override]
        """T, windows of a map."""
        return self.shape[0] * self.shape[1]

    def windows(self, x: Tensor) -> Tensor:
        return x if self.mask is None else masked(x, self.mask, self.count)

    def from_windows(self, windows: Tensor) -> Tensor:
        return windows

    def spread(self, factors: Tensor) -> Tensor:
        return repeated(factors, self.count)[:, :, None, None]

    def pad_even(self, x: Tensor) -> Tensor:
        return self.windows(x)

    def to_map(self, x: Tensor) -> Tensor:
        return join(x, self.size, self.shape)


def mask_of(size: Size, window: Size, shape: Size, like: Tensor) -> Tensor:
    """(T, 1, h, w) of 1 where the windows of a map lie on it and 0 outside.

    In a graph of dynamic sizes (N * T, 1, h, w): an axis of T positions would specialise it to one
    window or to several.

    Args:
        size: H and W of the map.
        window: h and w.
        shape: rows and columns of windows.
        like: of the same type, on the same device, and with N images.
    """
    if not is_dynamic(*size):
        return cut(like.new_ones(1, 1, *size), window, shape)
    # Two channels, for cut to have more than rows on an axis.
    return cut(like.new_ones(like.shape[0], 2, *size), window, shape)[:, :1]


def map_grids(
    x: Tensor, strides: Sequence[int], windows: Sequence[Size]
) -> tuple[Tensor, list[MapGrid]]:
    """Prepare images (N, C, H, W) for stages whose blocks each cut their map.

    Args:
        x: the images.
        strides: of the stages; the stem's kernel equals the first.
        windows: h and w of every stage's windows.

    Returns:
        What the stem is called with, and every stage's grid.
    """
    sizes = stage_sizes(x.shape[2:], strides)
    height, width = sizes[0]
    return resize(x, (strides[0] * height, strides[0] * width)), [
        MapGrid(size, window, counts(size, window))
        for size, window in zip(sizes, windows, strict=False)
    ]


def window_grids(
    x: Tensor, strides: Sequence[int], windows: Sequence[Size], *, filled: bool
) -> tuple[Tensor, list[MapGrid]]:
    """Cut images (N, C, H, W) for stages whose own form are windows; as :func:`map_grids`.

    Args:
        x: the images.
        strides: of the stages.
        windows: h and w of every stage's windows, which all show the same pixels.
        filled: whether windows fill the images.
    """
    pixels = strides[0] * windows[0][0], strides[0] * windows[0][1]
    shape = counts((x.shape[2], x.shape[3]), pixels)
    return cut(x, pixels, shape), [
        WindowGrid(size, window, shape, None if filled else mask_of(size, window, shape, like=x))
        for size, window in zip(stage_sizes(x.shape[2:], strides), windows, strict=False)
    ]
