"""AS-MLP.

Paper: Lian, Yu, Sun, Gao: AS-MLP: An Axial Shifted MLP Architecture for Vision, ICLR 2022,
arXiv:2107.08391.
Published code: svip-lab/AS-MLP at commit dd1eb4f, ``models/as_mlp.py`` (MIT); dense:
svip-lab/AS-MLP-Semantic-Segmentation at c9838f9 and svip-lab/AS-MLP-Object-Detection at f80ff38,
``mmseg/`` and ``mmdet/models/backbones/asmlp.py`` (Apache-2.0).

Channels are cut into groups, each group is shifted by a number of positions of its own along an
axis, and a 1 x 1 convolution behind it mixes what has come from different positions. One branch
shifts along the width, one along the height; their sum passes through a norm and another 1 x 1
convolution, and a channel MLP follows. Mixing is local as in a small convolution, and its weights
depend on neither the image's size nor the shift's. Four stages with strides 4, 8, 16 and 32 make a
pyramid.

Shapes: N images, C channels, H x W positions of the map.

Kept from the release, since its weights were trained so:
- every norm is a group norm of one group: its statistics are of all channels and positions of an
  image, padding included;
- images are padded with zeros below and on the right to multiples of 4, and maps to even sizes
  before they are merged, as the published segmentation code does;
- merged neighbours are ordered column by column.

Differences from the published release: names of parameters; dense outputs and classification are
one class; the shift is computed on every device, the released classifier's on CUDA alone; images of
any size. Published weights, converted by ``tools/convert_checkpoint.py``, give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Unpack

import torch
from torch import Tensor, nn

from mmwave.models.layers import (
    ChannelMLP,
    ConvEmbed,
    DropPath,
    PointwiseConv,
    build_activation,
    build_norm,
)
from mmwave.ops import axial_shift
from mmwave.ops.layout import HEIGHT, WIDTH, channels_last
from mmwave.ops.windows import pad_to_multiples
from mmwave.registry import MODELS

from .arch import check_positive, per_stage, resolve_arch
from .base import GELU, BackboneSettings
from .pyramid import STRIDES, PyramidBackbone


@dataclass(frozen=True, kw_only=True)
class ASMLPArch:
    """Sizes of an AS-MLP.

    Attributes:
        depths: blocks of each of the four stages.
        dims: channels of each stage.
        mlp_ratio: hidden channels of the channel MLPs, in multiples of their stage's channels.
    """

    depths: Sequence[int]
    dims: Sequence[int]
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        for name in ('depths', 'dims'):
            object.__setattr__(self, name, per_stage(name, getattr(self, name), len(STRIDES)))
        check_positive(self, 'mlp_ratio')


ARCHS: Mapping[str, ASMLPArch] = MappingProxyType(
    {
        # configs/as_mlp_tiny_patch4_shift5_224.yaml of the release, and its likes.
        't': ASMLPArch(depths=(2, 2, 6, 2), dims=(96, 192, 384, 768)),
        's': ASMLPArch(depths=(2, 2, 18, 2), dims=(96, 192, 384, 768)),
        'b': ASMLPArch(depths=(2, 2, 18, 2), dims=(128, 256, 512, 1024)),
    }
)


def shift_offsets(channels: int, shift_size: int) -> tuple[int, ...]:
    """Where each channel is read, in positions.

    Channels form ``shift_size`` groups of neighbours, the last of them smaller or missing where
    they cannot be divided. The first group is moved ``shift_size // 2`` positions towards the
    origin, each further one a position less.
    """
    group = -(-channels // shift_size)
    return tuple(shift_size // 2 - c // group for c in range(channels))


class PatchEmbed(ConvEmbed):
    """Embed every square of 4 x 4 pixels: (N, C_in, H, W) -> (N, C, ceil(H / 4), ceil(W / 4))."""

    def __init__(self, in_channels: int, channels: int) -> None:
        norm = build_norm('GN', channels)
        super().__init__(in_channels, channels, kernel_size=4, stride=4, padding=0, norm=norm)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(pad_to_multiples(x, 4))


class PatchMerging(nn.Module):
    """Merge squares of 2 x 2 positions: (N, C_in, H, W) -> (N, C, ceil(H / 2), ceil(W / 2))."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.norm = build_norm('GN', 4 * in_channels)
        self.reduction = PointwiseConv(4 * in_channels, channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiples(x, 2)
        corners = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(channels_last(torch.cat(corners, dim=1))))


class AxialShift(nn.Module):
    """The paper's AS operation: mix neighbours of (N, C, H, W) maps along both axes."""

    def __init__(self, channels: int, shift_size: int, act_cfg: dict) -> None:
        super().__init__()
        self.offsets = shift_offsets(channels, shift_size)
        self.conv1 = PointwiseConv(channels, channels)
        self.norm1 = build_norm('GN', channels)
        self.conv_w = PointwiseConv(channels, channels)
        self.conv_h = PointwiseConv(channels, channels)
        self.norm2 = build_norm('GN', channels)
        self.conv2 = PointwiseConv(channels, channels)
        self.act = build_activation(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.conv1(x)))
        across = self.act(self.conv_w(axial_shift(x, self.offsets, WIDTH)))
        down = self.act(self.conv_h(axial_shift(x, self.offsets, HEIGHT)))
        return self.conv2(self.norm2(across + down))


class ASMLPBlock(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(
        self, channels: int, mlp_ratio: int, *, shift_size: int, drop_path: float, act_cfg: dict
    ) -> None:
        super().__init__()
        self.norm1 = build_norm('GN', channels)
        self.mixer = AxialShift(channels, shift_size, act_cfg)
        self.norm2 = build_norm('GN', channels)
        self.mlp = ChannelMLP(channels, mlp_ratio * channels, channels, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


@MODELS.register_module()
class ASMLP(PyramidBackbone):
    """AS-MLP as a pyramid of maps with strides 4, 8, 16 and 32.

    It accepts images (N, in_channels, H, W) of any size from 32 x 32 up and returns one map per
    entry of ``out_indices``, taken before the downsample that follows the stage, each through an
    output norm of its own; ``stage_info`` has channels and strides. The map of stride s has ceil(H
    / s) x ceil(W / s) positions. The published classifier is ``out_indices=(3,)`` with average
    pooling and a linear head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`ASMLPArch`.
        shift_size: positions that a row or a column of a map is mixed over, an odd number.
            Published: 5 in every classifier, 3 in some detectors and segmentors. No tensor depends
            on it. Weights of another shift size are loaded with a warning: published models with 3
            were trained from classifiers with 5, but without training the outputs are others.
        **settings: see :class:`BackboneSettings`. Published for ImageNet: drop path of 0.2 (t), 0.3
            (s) and 0.5 (b).

    Raises:
        ValueError: for an unknown arch, a ``shift_size`` that is even or below 1, a setting out of
            range, and in ``forward`` for an image smaller than 32 x 32.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(GELU), 'shift_size': 5})
    adaptable = frozenset({'shift_size'})

    def __init__(
        self,
        arch: str | dict | ASMLPArch = 't',
        *,
        shift_size: int = 5,
        **settings: Unpack[BackboneSettings],
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        if not isinstance(shift_size, int) or shift_size < 1 or shift_size % 2 == 0:
            raise ValueError(f'shift_size={shift_size} must be an odd number from 1 up')
        super().__init__(sizes, **settings)
        self.shift_size = shift_size

        def block(i: int, _: int, drop_path: float) -> ASMLPBlock:
            return ASMLPBlock(
                sizes.dims[i],
                sizes.mlp_ratio,
                shift_size=shift_size,
                drop_path=drop_path,
                act_cfg=self.act_cfg,
            )

        self.build(
            stem=PatchEmbed, downsample=PatchMerging, block=block, norm=partial(build_norm, 'GN')
        )
