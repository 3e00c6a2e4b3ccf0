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

from torch import Tensor

from mmwave.ops.graphs import any_size
from mmwave.ops.mean import mean_over
from mmwave.ops.windows import counts, cut, join, resize
from mmwave.structures import SizeConstraint


def filled_sizes(strides: Sequence[int], windows: Sequence[tuple[int, int]]) -> SizeConstraint:
    """Image sizes whose maps are filled by windows, given strides and windows of all stages."""
    height, width = (
        math.lcm(*(s * window[axis] for s, window in zip(strides, windows, strict=True)))
        for axis in (0, 1)
    )
    return SizeConstraint(divisors=(height, width))


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
