"""Layers that mix the positions of windows, on maps of any size: each cuts its map and joins it."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from mmwave.ops.windows import by_parts, counts, cut, join, spans

from .token_grid import resampling
from .windows import Size

Mix = Callable[[Tensor, Size], Tensor]
"""Maps windows (M, C, h * w) and their (h, w) to as many."""


@dataclass(frozen=True)
class Windows:
    """How a layer that mixes the positions of windows sees a map (N, H, W, C).

    Attributes:
        trained: h and w of the windows that the layer was trained on.
        resize: whether maps are cut into windows that fill them, of sizes near to the trained one,
            instead of into trained ones, the last of them filled up with zeros.
        filled: whether all maps are of sizes that trained windows fill.
    """

    trained: Size
    resize: bool = False
    filled: bool = False

    def mixed(self, x: Tensor, mix: Mix) -> Tensor:
        """``x`` (N, H, W, C) with the positions of every window mixed."""
        if not self.resize:
            return _mixed(x, self.trained, mix)
        rows, columns = (spans(n, s) for n, s in zip(x.shape[1:3], self.trained, strict=True))
        return by_parts(x, rows, columns, lambda part, window: _mixed(part, window, mix))

    def resampled(self, values: Tensor, window: Size) -> Tensor:
        """Values of a trained window's positions, interpolated to another: (1, P) -> (1, h * w)."""
        if window == self.trained:
            return values
        grid = values.view(self.trained)
        rows, columns = (
            resampling(source, target, like=grid)
            for source, target in zip(self.trained, window, strict=True)
        )
        return (rows @ grid @ columns.T).view(1, -1)


def _mixed(x: Tensor, window: Size, mix: Mix) -> Tensor:
    """Mix a map (N, H, W, C) in windows of one size, the last ones filled up with zeros."""
    size = (x.shape[1], x.shape[2])
    shape = counts(size, window)
    windows = cut(x.permute(0, 3, 1, 2), window, shape).flatten(2)
    return join(mix(windows, window).unflatten(2, window), size, shape).permute(0, 2, 3, 1)
