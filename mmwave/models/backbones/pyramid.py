"""Backbones of four stages whose maps have strides 4, 8, 16 and 32, at any image size."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

from torch import Tensor, nn

from mmwave.models.layers import ConvEmbed
from mmwave.ops.layout import channels_last

from .base import BackboneSettings, MLPBackbone, drop_path_rates

STRIDES = (4, 8, 16, 32)


def check_blend(dims: Sequence[int]) -> None:
    """Raise ``ValueError`` unless a blend of branches can squeeze ``dims`` channels by 4."""
    if any(dim % 4 for dim in dims):
        raise ValueError(f'dims={dims} must be multiples of 4: the blend squeezes channels by 4')


def overlapping_stem(in_channels: int, channels: int, **parts: Any) -> ConvEmbed:
    """Embed 7 x 7 pixels every 4: (N, C_in, H, W) -> (N, C, floor((H - 3) / 4) + 1, ..).

    ``parts`` are arguments of :class:`ConvEmbed`. An image 333 pixels wide becomes 83 columns.
    """
    return ConvEmbed(in_channels, channels, kernel_size=7, stride=4, padding=2, **parts)


def overlapping_downsample(in_channels: int, channels: int, **parts: Any) -> ConvEmbed:
    """Embed 3 x 3 positions every 2: (N, C_in, H, W) -> (N, C, ceil(H / 2), ceil(W / 2)).

    ``parts`` are arguments of :class:`ConvEmbed`.
    """
    return ConvEmbed(in_channels, channels, kernel_size=3, stride=2, padding=1, **parts)


class PyramidBackbone(MLPBackbone):
    """A backbone of four stages, of (N, C, H, W) maps with channels last in memory.

    There a map is a matrix for all that mixes channels alone. A subclass calls ``__init__``, then
    :meth:`build`.

    Args:
        arch: its ``depths`` are blocks, its ``dims`` channels of the stages.

    The other arguments are those of :class:`BackboneSettings`.
    """

    def __init__(self, arch: Any, **settings: Unpack[BackboneSettings]) -> None:
        super().__init__(arch, channels=arch.dims, strides=STRIDES, **settings)

    def build(
        self,
        *,
        stem: Callable[[int, int], nn.Module],
        downsample: Callable[[int, int], nn.Module],
        block: Callable[[int, int, float], nn.Module],
        norm: Callable[[int], nn.Module],
    ) -> None:
        """Build the four parts.

        Args:
            stem: makes the stem, of its input and output channels.
            downsample: makes a downsample, likewise.
            block: makes a block, of its stage, its number in the stage and its drop path rate.
            norm: makes an output norm, of its channels.
        """
        dims, stages = self.arch.dims, range(self.num_stages)
        rates = drop_path_rates(self.drop_path_rate, self.arch.depths)
        self.stem = stem(self.in_channels, dims[0])
        self.downsamples = nn.ModuleList(downsample(dims[i - 1], dims[i]) for i in stages[1:])
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(i, j, rate) for j, rate in enumerate(rates[i]))) for i in stages
        )
        self.out_norms = nn.ModuleDict({str(i): norm(dims[i]) for i in self.out_indices})
        self.finish()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the levels that ``stage_info`` describes."""
        self.check_input(x)
        return super().forward(channels_last(x))
