"""A 1 x 1 convolution that multiplies by its matrix where the map's layout lets it."""

from torch import Tensor

from mmwave.ops import linear
from mmwave.ops.graphs import is_dynamic
from mmwave.ops.layout import is_channels_last

from .conv import Conv2d


class PointwiseConv(Conv2d):
    """Mix channels at every position by itself: (N, C_in, H, W) -> (N, C_out, H, W).

    A map with channels last in memory is a matrix of positions and channels: one product computes
    all images, forwards and backwards, where a convolution computes image after image.
    """

    def __init__(self, in_channels: int, out_channels: int, bias: bool = True) -> None:
        super().__init__(in_channels, out_channels, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        # In a graph of any size the question alone would exclude maps of one row or column.
        if not is_dynamic(*x.shape) and not is_channels_last(x):
            return super().forward(x)
        rows = linear(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return rows.permute(0, 3, 1, 2)
