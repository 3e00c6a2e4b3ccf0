"""CycleMLP.

Paper: Chen, Xie, Ge, Chen, Liang, Luo: CycleMLP: A MLP-like Architecture for Dense Prediction, ICLR
2022, arXiv:2107.10224.
Published code: ShoufaChen/CycleMLP at commit 4e062a0, ``cycle_mlp.py`` (MIT).

A channel projection sees one position. A Cycle FC is a channel projection whose input channels are
read in turn at the position itself, one behind it and one before it along an axis: a field of view
of three for the price of one. One Cycle FC along the width, one along the height and a plain
channel projection are blended per channel by weights computed from the whole image, and a channel
MLP follows. Four stages with strides 4, 8, 16 and 32 make a pyramid; no part of it depends on the
image's size.

Shapes: N images, C channels, H x W positions of the map.

Kept from the release, since its weights were trained so:
- the stem pads two pixels to a kernel of seven with stride four: an image 333 pixels wide becomes
  83 columns;
- neither the stem nor the downsamples end in a norm.

Differences from the published release: parameters have other names, and the two Cycle FCs are
called by the axis that they read along: its ``sfc_h`` reads along the width and is ``width`` here,
its ``sfc_w`` reads along the height and is ``height``. Channels are shifted, where the release
calls a deformable convolution with an ``offset`` buffer. Dense outputs and classification are one
class, and dense models have drop path as well. Published weights, converted by
``tools/convert_checkpoint.py``, give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Unpack

from torch import Tensor, nn

from mmwave.models.layers import (
    ChannelMLP,
    DropPath,
    LayerNorm2d,
    PointwiseConv,
    blended,
    branch_weights,
)
from mmwave.ops import axial_shift
from mmwave.ops.layout import HEIGHT, WIDTH
from mmwave.ops.mean import mean_over
from mmwave.registry import MODELS

from .arch import per_stage, resolve_arch
from .base import BackboneSettings, init_linear
from .pyramid import (
    STRIDES,
    PyramidBackbone,
    check_blend,
    overlapping_downsample,
    overlapping_stem,
)

STEP = 3
"""Positions, itself included, that the channels of a position are read at along an axis."""


@dataclass(frozen=True, kw_only=True)
class CycleMLPArch:
    """Sizes of a CycleMLP.

    Attributes:
        depths: blocks of each of the four stages.
        dims: channels of each stage.
        mlp_ratios: hidden channels of each stage's channel MLP, in multiples of its channels.
    """

    depths: Sequence[int]
    dims: Sequence[int]
    mlp_ratios: Sequence[int] = (4, 4, 4, 4)

    def __post_init__(self) -> None:
        for name in ('depths', 'dims', 'mlp_ratios'):
            object.__setattr__(self, name, per_stage(name, getattr(self, name), len(STRIDES)))
        check_blend(self.dims)


_DIMS = (64, 128, 320, 512)
_RATIOS = (8, 8, 4, 4)

# The model functions of the release's cycle_mlp.py. Its README also lists T, S and B, of which no
# code was published.
ARCHS: Mapping[str, CycleMLPArch] = MappingProxyType(
    {
        'b1': CycleMLPArch(depths=(2, 2, 4, 2), dims=_DIMS),  # CycleMLP_B1
        'b2': CycleMLPArch(depths=(2, 3, 10, 3), dims=_DIMS),  # CycleMLP_B2
        'b3': CycleMLPArch(depths=(3, 4, 18, 3), dims=_DIMS, mlp_ratios=_RATIOS),  # CycleMLP_B3
        'b4': CycleMLPArch(depths=(3, 8, 27, 3), dims=_DIMS, mlp_ratios=_RATIOS),  # CycleMLP_B4
        'b5': CycleMLPArch(depths=(3, 4, 24, 3), dims=(96, 192, 384, 768)),  # CycleMLP_B5
    }
)


def cycle_offsets(channels: int) -> tuple[int, ...]:
    """Return where each channel is read, in positions: 0, 1, -1, 0, 1, -1 and so on."""
    half = STEP // 2
    return tuple((channel + half) % STEP - half for channel in range(channels))


class CycleFC(PointwiseConv):
    """Mix the channels of three positions along an axis: (N, C, H, W) -> (N, C, H, W).

    Channels are read at :func:`cycle_offsets`, zeros outside the map.

    Args:
        channels: C.
        dim: 2 for the height, 3 for the width.
    """

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__(channels, channels)
        self.offsets, self.dim = cycle_offsets(channels), dim

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(axial_shift(x, self.offsets, self.dim))


class CycleMixer(nn.Module):
    """Mix rows and columns of (N, C, H, W) maps: two Cycle FCs and a channel projection, blended.

    The branches are blended in the order width, height, channel.
    """

    def __init__(self, channels: int, act_cfg: dict) -> None:
        super().__init__()
        self.width = CycleFC(channels, WIDTH)
        self.height = CycleFC(channels, HEIGHT)
        self.channel = PointwiseConv(channels, channels, bias=False)
        self.reweight = ChannelMLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = PointwiseConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.width(x), self.height(x), self.channel(x)
        pooled = sum(mean_over(map_, 2, 3) for map_ in maps)[..., None, None]
        return self.proj(blended(maps, branch_weights(self.reweight, pooled)))


class CycleBlock(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(self, channels: int, mlp_ratio: int, drop_path: float, act_cfg: dict) -> None:
        super().__init__()
        self.norm1 = LayerNorm2d(channels)
        self.mixer = CycleMixer(channels, act_cfg)
        self.norm2 = LayerNorm2d(channels)
        self.mlp = ChannelMLP(channels, mlp_ratio * channels, channels, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


@MODELS.register_module()
class CycleMLP(PyramidBackbone):
    """CycleMLP as a pyramid of maps with strides 4, 8, 16 and 32.

    It accepts images (N, in_channels, H, W) of any size from 32 x 32 up and returns one map per
    entry of ``out_indices``, each through an output norm of its own; ``stage_info`` has channels
    and strides. The published classifier is ``out_indices=(3,)`` with average pooling and a linear
    head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`CycleMLPArch`.
        **settings: see :class:`BackboneSettings`.

    Raises:
        ValueError: for an unknown arch, a setting out of range, and in ``forward`` for an image
            smaller than 32 x 32.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS

    def __init__(
        self, arch: str | dict | CycleMLPArch = 'b1', **settings: Unpack[BackboneSettings]
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        super().__init__(sizes, **settings)

        def block(i: int, _: int, drop_path: float) -> CycleBlock:
            return CycleBlock(sizes.dims[i], sizes.mlp_ratios[i], drop_path, self.act_cfg)

        self.build(
            stem=partial(overlapping_stem, norm=None),
            downsample=partial(overlapping_downsample, norm=None),
            block=block,
            norm=LayerNorm2d,
        )
