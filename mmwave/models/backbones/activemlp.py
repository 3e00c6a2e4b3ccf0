"""ActiveMLP, also called ATMNet.

Paper: Wei, Zhang, Lan, Lu, Chen: Active Token Mixer, AAAI 2023, arXiv:2203.06108.
Published code: microsoft/TokenMixers at commit 99dbe38, ``Active Token Mixer/`` (formerly
microsoft/ActiveMLP; MIT), ``models/activemlp.py`` and ``segmentation/activemlp.py``.

Every position of the map chooses where it looks. From its features a linear layer predicts, for
every few channels, how far along its row and how far along its column to read them; the channels
are sampled there and projected. The two maps and a plain channel projection are blended per channel
by weights computed from the whole image, and a channel MLP follows. Offsets are predicted in some
blocks only and reused by those behind them. Four stages with strides 4, 8, 16 and 32 make a
pyramid; no part of it depends on the image's size.

Shapes: N images, C channels, H x W positions of the map, G = C / share groups of channels that
share an offset.

Kept from the release, since its weights were trained so:
- the stem pads two pixels to a kernel of seven with stride four: an image 333 pixels wide becomes
  83 columns; neither the stem nor the downsamples end in a norm;
- a stage has one position convolution, applied anew before each block that predicts offsets; its
  output is added to the map itself, not only to what offsets are predicted from;
- the last block of a stage predicts none, also where the interval would have it so;
- offsets are in positions and unbounded; beyond the map a sample fades to zero over one position.

Differences from the published release: names of parameters; downsamples are parts of their own, not
of the last block before them; maps are sampled along an axis, where the release calls a deformable
convolution; dense outputs and classification are one class. A stage of a single block, which cannot
run in the release, predicts its own offsets. Published weights, converted by
``tools/convert_checkpoint.py``, give the same outputs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Unpack

from torch import Tensor, nn

from mmwave.models.layers import (
    ChannelMLP,
    Conv2d,
    DropPath,
    LayerNorm2d,
    PointwiseConv,
    blended,
    branch_weights,
)
from mmwave.ops import axial_sample
from mmwave.ops.layout import HEIGHT, WIDTH
from mmwave.ops.mean import mean_over
from mmwave.registry import MODELS

from .arch import check_positive, per_stage, resolve_arch
from .base import BackboneSettings, init_linear
from .pyramid import (
    STRIDES,
    PyramidBackbone,
    check_blend,
    overlapping_downsample,
    overlapping_stem,
)


@dataclass(frozen=True, kw_only=True)
class ActiveMLPArch:
    """Sizes of an ActiveMLP.

    Attributes:
        depths: blocks of each of the four stages.
        dims: channels of each stage.
        mlp_ratios: hidden channels of each stage's channel MLP, in multiples of its channels.
        shares: consecutive channels that share an offset, in each stage.
        interval: every so many blocks of a stage, offsets are predicted anew.
    """

    depths: Sequence[int]
    dims: Sequence[int]
    mlp_ratios: Sequence[int] = (4, 4, 4, 4)
    shares: Sequence[int] = (2, 4, 4, 8)
    interval: int = 2

    def __post_init__(self) -> None:
        for name in ('depths', 'dims', 'mlp_ratios', 'shares'):
            object.__setattr__(self, name, per_stage(name, getattr(self, name), len(STRIDES)))
        check_positive(self, 'interval')
        check_blend(self.dims)
        if any(dim % share for dim, share in zip(self.dims, self.shares, strict=True)):
            raise ValueError(f'dims={self.dims} must be multiples of shares={self.shares}')

    def predicts_offsets(self, stage: int, block: int) -> bool:
        """Whether a block predicts offsets; the others reuse the last ones of their stage."""
        is_last = block == self.depths[stage] - 1
        return block == 0 or (block % self.interval == 0 and not is_last)


_DIMS = (64, 128, 320, 512)
_RATIOS = (8, 8, 4, 4)

# The model functions of the release's models/activemlp.py, called xT, T, S, B and L in its README.
ARCHS: Mapping[str, ActiveMLPArch] = MappingProxyType(
    {
        'xt': ActiveMLPArch(depths=(2, 2, 4, 2), dims=_DIMS),
        't': ActiveMLPArch(depths=(2, 3, 10, 3), dims=_DIMS),
        's': ActiveMLPArch(depths=(3, 4, 18, 3), dims=_DIMS, mlp_ratios=_RATIOS, interval=6),
        'b': ActiveMLPArch(depths=(3, 8, 27, 3), dims=_DIMS, mlp_ratios=_RATIOS, interval=6),
        'l': ActiveMLPArch(depths=(3, 4, 24, 3), dims=(96, 192, 384, 768), interval=6),
    }
)


class OffsetLayer(nn.Module):
    """Predict where channels are read: (N, C, H, W) -> (N, 2 * G, H, W), in positions.

    The first G are offsets along the width, the last along the height.
    """

    def __init__(self, channels: int, share: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels)
        self.proj = PointwiseConv(channels, 2 * channels // share)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.norm(x))


class ActiveTokenMixer(nn.Module):
    """The paper's ATM: mix (N, C, H, W) maps read at (N, 2 * G, H, W) offsets.

    The branches are blended in the order width, height, channel.
    """

    def __init__(self, channels: int, act_cfg: dict) -> None:
        super().__init__()
        self.width = PointwiseConv(channels, channels)
        self.height = PointwiseConv(channels, channels)
        self.channel = PointwiseConv(channels, channels, bias=False)
        self.reweight = ChannelMLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = PointwiseConv(channels, channels)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        along_width, along_height = offsets.chunk(2, dim=1)
        w = self.width(axial_sample(x, along_width, WIDTH))
        h = self.height(axial_sample(x, along_height, HEIGHT))
        maps = w, h, self.channel(x)
        pooled = sum(mean_over(map_, 2, 3) for map_ in maps)[..., None, None]
        return self.proj(blended(maps, branch_weights(self.reweight, pooled)))


class PositionConv(Conv2d):
    """Add to each channel its 3 x 3 neighbourhood, weighted: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class ActiveBlock(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut.

    Args:
        channels: C.
        mlp_ratio: hidden channels of the channel MLP, in multiples of C.
        share: channels that share an offset of those that the block predicts; 0 for a block that
            reuses offsets.
        is_first: whether it is the first block of its stage. That one stores the position
            convolution of the whole stage, since a stage contains blocks and nothing else.
        drop_path: probability to drop a branch.
        act_cfg: config of the activation.
    """

    def __init__(
        self,
        channels: int,
        mlp_ratio: int,
        *,
        share: int,
        is_first: bool,
        drop_path: float,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        self.position = PositionConv(channels) if is_first else None
        self.offsets = OffsetLayer(channels, share) if share else None
        self.norm1 = LayerNorm2d(channels)
        self.mixer = ActiveTokenMixer(channels, act_cfg)
        self.norm2 = LayerNorm2d(channels)
        self.mlp = ChannelMLP(channels, mlp_ratio * channels, channels, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.apply(init_layer)

    def forward(
        self, x: Tensor, offsets: Tensor | None, position: PositionConv
    ) -> tuple[Tensor, Tensor]:
        """Return the map and the offsets that it was read at, for the next block."""
        if self.offsets is not None:
            x = position(x)
            offsets = self.offsets(x)
        x = x + self.drop_path(self.mixer(self.norm1(x), offsets))
        return x + self.drop_path(self.mlp(self.norm2(x))), offsets


def init_layer(module: nn.Module) -> None:
    """Initialise a layer as the release does: for ``module.apply``."""
    init_linear(module)
    if isinstance(module, Conv2d) and not isinstance(module, PointwiseConv):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        nn.init.zeros_(module.bias)


@MODELS.register_module()
class ActiveMLP(PyramidBackbone):
    """ActiveMLP as a pyramid of maps with strides 4, 8, 16 and 32.

    It accepts images (N, in_channels, H, W) of any size from 32 x 32 up and returns one map per
    entry of ``out_indices``, each through an output norm of its own; ``stage_info`` has channels
    and strides. The published classifier is ``out_indices=(3,)`` with average pooling and a linear
    head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`ActiveMLPArch`.
        **settings: see :class:`BackboneSettings`.

    Raises:
        ValueError: for an unknown arch, a setting out of range, and in ``forward`` for an image
            smaller than 32 x 32.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS

    def __init__(
        self, arch: str | dict | ActiveMLPArch = 'xt', **settings: Unpack[BackboneSettings]
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        super().__init__(sizes, **settings)

        def block(i: int, j: int, drop_path: float) -> ActiveBlock:
            return ActiveBlock(
                sizes.dims[i],
                sizes.mlp_ratios[i],
                share=sizes.shares[i] if sizes.predicts_offsets(i, j) else 0,
                is_first=j == 0,
                drop_path=drop_path,
                act_cfg=self.act_cfg,
            )

        def embed(make: Callable[..., nn.Module], c_in: int, c_out: int) -> nn.Module:
            return make(c_in, c_out, norm=None).apply(init_layer)

        self.build(
            stem=partial(embed, overlapping_stem),
            downsample=partial(embed, overlapping_downsample),
            block=block,
            norm=LayerNorm2d,
        )

    def run_each(self, blocks: Any, x: Tensor, *context: Any) -> Tensor:
        """Map ``x`` through the blocks of a stage, offsets passed from one to the next."""
        offsets = None
        for block in blocks:
            x, offsets = self.run_block(block, x, offsets, blocks[0].position)
        return x
