"""Hire-MLP.

Paper: Guo, Tang, Han, Chen, Wu, Xu, Xu, Wang: Hire-MLP: Vision MLP via Hierarchical Rearrangement,
CVPR 2022, arXiv:2108.13341.
Published code: ggjy/Hire-Wave-MLP.pytorch at commit 7ef7ddd, ``mlp_based/hire_mlp.py``, and for
dense outputs ``mmseg-v0.11/mmseg/models/backbones/hire_mlp.py``. Its README says MIT; there is no
licence file.

A map is cut into regions, bands of a few rows. The rows of a region are put into channels, and an
MLP with a bottleneck mixes them: that is the exchange within regions. From block to block the map
is rolled by more rows before it is cut and back after it, so that regions meet others: the exchange
across regions. Columns are treated alike beside it. The two results and a plain channel projection
are blended per channel by weights computed from the whole image, and a channel MLP follows. Four
stages with strides 4, 8, 16 and 32 make a pyramid; no part of it depends on the image's size.

Shapes: N images, C channels, H x W positions of the map, p rows or columns of a region.

Kept from the release, since its weights were trained so:
- a map whose side is no multiple of p continues with its own first rows, as if it was a ring;
- a region's channels are ordered by channel, then by row: C * p channels, of which channel
  c * p + r is channel c of row r;
- the stem pads two pixels to a kernel of seven with stride four: an image 333 pixels wide becomes
  83 columns;
- the stem and the downsamples end in ReLU, behind their norm.

Differences from the published release: names of parameters; dense outputs and classification are
one class. Images of 32 x 32 and more go through whatever ``region_sizes`` are: a map smaller than a
region is repeated as often as it takes. Published weights, converted by
``tools/convert_checkpoint.py``, give the same outputs. The port to MindSpore (mindspore-ai/models,
commit eab643f, ``research/cv/HireMLP``) rolls the other way: ``shift_direction``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal, Unpack, get_args

from torch import Tensor, nn

from mmwave.models.layers import (
    ChannelMLP,
    DropPath,
    PointwiseConv,
    blended,
    branch_weights,
    build_norm,
)
from mmwave.ops.mean import mean_over
from mmwave.ops.regions import from_regions, to_regions
from mmwave.registry import MODELS

from .arch import per_stage, resolve_arch
from .base import GELU, BackboneSettings
from .pyramid import (
    STRIDES,
    PyramidBackbone,
    check_blend,
    overlapping_downsample,
    overlapping_stem,
)

ROWS, COLUMNS = 1, 2
"""Axes of a map (N, H, W, C)."""
ShiftDirection = Literal['forward', 'backward']


@dataclass(frozen=True, kw_only=True)
class HireMLPArch:
    """Sizes of a Hire-MLP.

    Attributes:
        depths: blocks of each of the four stages.
        dims: channels of each stage.
        mlp_ratios: hidden channels of each stage's channel MLP, in multiples of its channels.
        region_sizes: p of each stage.
        shift_steps: rows or columns by which each block of a stage rolls its map further than the
            one before it, the first one by none.
        shift_cycles: blocks of each stage after which rolling starts anew from none.
    """

    depths: Sequence[int]
    dims: Sequence[int]
    mlp_ratios: Sequence[int] = (4, 4, 4, 4)
    region_sizes: Sequence[int] = (4, 3, 3, 2)
    shift_steps: Sequence[int] = (2, 2, 1, 1)
    shift_cycles: Sequence[int] = (2, 2, 3, 2)

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            object.__setattr__(self, name, per_stage(name, getattr(self, name), len(STRIDES)))
        check_blend(self.dims)

    def shift(self, stage: int, block: int) -> int:
        """Rows or columns by which a block rolls its map."""
        return block % self.shift_cycles[stage] * self.shift_steps[stage]


# The factory functions of the release; no weights of l were published.
_B = HireMLPArch(depths=(4, 6, 24, 3), dims=(64, 128, 320, 512))

ARCHS: Mapping[str, HireMLPArch] = MappingProxyType(
    {
        't': replace(_B, depths=(2, 2, 4, 2)),  # hire_mlp_tiny of the release
        's': replace(_B, depths=(3, 4, 10, 3)),  # hire_mlp_small
        'b': _B,  # hire_mlp_base
        'l': replace(_B, dims=(96, 192, 384, 768)),  # hire_mlp_large
    }
)


class RegionMLP(nn.Module):
    """Mix the rows of regions, or the columns, by an MLP: (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        axis: :data:`ROWS` or :data:`COLUMNS`.
        region_size: p.
        shift: positions to roll the map by before it is cut into regions, and back after it.
    """

    def __init__(self, channels: int, axis: int, region_size: int, shift: int) -> None:
        super().__init__()
        self.axis, self.region_size, self.shift = axis, region_size, shift
        self.fc1 = PointwiseConv(channels * region_size, channels // 2, bias=False)
        self.norm = build_norm('BN', channels // 2)
        self.act = nn.ReLU()
        self.fc2 = PointwiseConv(channels // 2, channels * region_size)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 2, 3, 1)
        shape, axis = (x.shape[1], x.shape[2]), (self.axis, self.region_size)
        x = to_regions(x, *axis, self.shift)
        x = self.fc2(self.act(self.norm(self.fc1(x.permute(0, 3, 1, 2)))))
        x = from_regions(x.permute(0, 2, 3, 1), *axis, shape, self.shift)
        return x.permute(0, 3, 1, 2)


class HireMixer(nn.Module):
    """The paper's Hire module: mix rows and columns of (N, C, H, W) maps in regions."""

    def __init__(self, channels: int, region_size: int, shift: int, act_cfg: dict) -> None:
        super().__init__()
        self.rows = RegionMLP(channels, ROWS, region_size, shift)
        self.columns = RegionMLP(channels, COLUMNS, region_size, shift)
        self.channel = PointwiseConv(channels, channels)
        self.reweight = ChannelMLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = PointwiseConv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.rows(x), self.columns(x), self.channel(x)
        pooled = sum(mean_over(map_, 2, 3) for map_ in maps)[..., None, None]
        return self.proj(blended(maps, branch_weights(self.reweight, pooled)))


class HireBlock(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(
        self,
        channels: int,
        mlp_ratio: int,
        *,
        region_size: int,
        shift: int,
        drop_path: float,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        self.norm1 = build_norm('BN', channels)
        self.mixer = HireMixer(channels, region_size, shift, act_cfg)
        self.norm2 = build_norm('BN', channels)
        self.mlp = ChannelMLP(channels, mlp_ratio * channels, channels, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.apply(init_conv)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def init_conv(module: nn.Module) -> None:
    """Draw the weights of a convolution with a deviation of 0.02 and zero its bias."""
    if isinstance(module, nn.Conv2d):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@MODELS.register_module()
class HireMLP(PyramidBackbone):
    """Hire-MLP as a pyramid of maps with strides 4, 8, 16 and 32.

    It accepts images (N, in_channels, H, W) of any size from 32 x 32 up and returns one map per
    entry of ``out_indices``, each through an output norm of its own; ``stage_info`` has channels
    and strides. The published classifier is ``out_indices=(3,)`` with average pooling and a linear
    head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`HireMLPArch`.
        shift_direction: where maps are rolled before they are cut into regions: ``'forward'``, to
            higher rows and columns, as in the PyTorch release, or ``'backward'``, as in
            MindSpore's.
        **settings: see :class:`BackboneSettings`.

    Raises:
        ValueError: for an unknown arch or ``shift_direction``, a setting out of range, and in
            ``forward`` for an image smaller than 32 x 32.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(GELU), 'shift_direction': 'forward'})

    def __init__(
        self,
        arch: str | dict | HireMLPArch = 't',
        *,
        shift_direction: ShiftDirection = 'forward',
        **settings: Unpack[BackboneSettings],
    ) -> None:
        if shift_direction not in get_args(ShiftDirection):
            raise ValueError(
                f"unknown shift_direction {shift_direction!r}: expected 'forward' or 'backward'"
            )
        sizes = resolve_arch(arch, ARCHS)
        super().__init__(sizes, **settings)
        self.shift_direction = shift_direction
        norm = partial(build_norm, 'BN')
        sign = 1 if shift_direction == 'forward' else -1

        def embed(make: Callable[..., nn.Module], c_in: int, c_out: int) -> nn.Module:
            return make(c_in, c_out, norm=norm(c_out), act=nn.ReLU()).apply(init_conv)

        def block(i: int, number: int, drop_path: float) -> HireBlock:
            return HireBlock(
                sizes.dims[i],
                sizes.mlp_ratios[i],
                region_size=sizes.region_sizes[i],
                shift=sign * sizes.shift(i, number),
                drop_path=drop_path,
                act_cfg=self.act_cfg,
            )

        self.build(
            stem=partial(embed, overlapping_stem),
            downsample=partial(embed, overlapping_downsample),
            block=block,
            norm=norm,
        )
