"""PosMLP.

Paper: Wang, Hao, Gao, Zhang, Wang, Mu, He: Parameterization of Cross-Token Relations with Relative
Positional Encoding for Vision MLP, ACM Multimedia 2022, arXiv:2207.07284.
Published code: Zhicaiwww/PosMLP at commit 654f020, ``models/posmlp.py``, ``models/posmlp2D.py`` and
``models/patch_downsample.py``.

A block is one channel MLP. Between its two layers the hidden channels are split in halves, and one
half, mixed over the positions of a window, gates the other, as in gMLP. The matrices that mix are
not learnt entry by entry but computed from relative positions: row p is a softmax over q of a
quadratic form of the offset from p to q, a Gaussian with a centre and a spread. A group of channels
has one of each, six numbers. Four stages with strides 4, 8, 16 and 32 make a pyramid.

Shapes: N images, C channels, H x W positions of the map, h x w of a window, P = h * w, S groups.

Kept from the release, since its weights were trained so:
- of an offset the first number counts columns to the right, the second rows upwards;
- channel c belongs to group c mod S;
- the first half of the hidden channels is mixed, the second is gated;
- every norm has an epsilon of 1e-6.

Differences from the published release: names of parameters; dense outputs, each with an output
norm; any image size, see ``grid_mode``; kernels are computed from the offsets, where the release
holds a table of their products per block; initial values. Published weights, converted by
``tools/convert_checkpoint.py``, give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Unpack

import torch
from torch import Tensor, nn

from mmwave.models.layers import Conv2d, ConvEmbed, DropPath, Linear, build_activation, halves
from mmwave.models.layers.window_mixing import Windows
from mmwave.models.layers.windows import filled_sizes
from mmwave.ops import positional_kernel, spatial_fc
from mmwave.registry import MODELS
from mmwave.structures import SizeConstraint

from .arch import check_rate, per_stage, resolve_arch
from .base import BackboneSettings, drop_path_rates, init_linear
from .grid import GridMode, WindowBackbone, grid_pair

STRIDES = (4, 8, 16, 32)
EPS = 1e-6
"""Epsilon of every norm."""


@dataclass(frozen=True, kw_only=True)
class PosMLPArch:
    """Sizes of a PosMLP.

    Attributes:
        depths: blocks of each of the four stages.
        dims: channels of each stage, multiples of the stage's before; the first ones even.
        mlp_ratios: hidden channels of each stage's blocks, in multiples of its channels; half of
            them are gated.
        windows: (h, w) of each stage's windows in positions; one number stands for a square.
        groups: S of each stage, kernels of a gate; divides the gated channels.
    """

    depths: Sequence[int]
    dims: Sequence[int]
    mlp_ratios: Sequence[int] = (4, 4, 4, 2)
    windows: Sequence[int | tuple[int, int]] = (14, 14, 14, 7)
    groups: Sequence[int] = (8, 16, 32, 64)

    def __post_init__(self) -> None:
        for name in ('depths', 'dims', 'mlp_ratios', 'groups'):
            object.__setattr__(self, name, per_stage(name, getattr(self, name), len(STRIDES)))
        given = (self.windows,) if isinstance(self.windows, int) else tuple(self.windows)
        if len(given) != len(STRIDES):
            raise ValueError(f'windows={given} must be {len(STRIDES)}, one per stage')
        object.__setattr__(self, 'windows', tuple(grid_pair('windows', w) for w in given))
        if any(dim % before for before, dim in zip((2, *self.dims), self.dims, strict=False)):
            raise ValueError(
                f'dims={self.dims} must be even and each a multiple of the one before: the '
                'convolution of a downsample is depthwise'
            )
        for dim, ratio, groups in zip(self.dims, self.mlp_ratios, self.groups, strict=True):
            if dim * ratio % (2 * groups):
                raise ValueError(
                    f'half of dims={self.dims} times mlp_ratios={self.mlp_ratios} must be '
                    f'multiples of groups={self.groups}'
                )

    def filled_sizes(self) -> SizeConstraint:
        """Image sizes whose maps are filled by the windows of every stage."""
        return filled_sizes(STRIDES, self.windows)


_T = PosMLPArch(depths=(2, 2, 18, 2), dims=(96, 192, 384, 768))

ARCHS: Mapping[str, PosMLPArch] = MappingProxyType(
    {
        't': _T,  # T14 of the release's posmlp.py
        's': replace(_T, dims=(128, 256, 512, 1024)),  # S14
        # A row of the README alone, which names no channels: these have its number of parameters.
        'b': replace(_T, dims=(192, 384, 768, 1536)),
    }
)


class PositionalGate(nn.Module):
    """The paper's positional spatial gating unit, but for the product: (N, H, W, C) -> the same.

    It maps the half of the channels that is mixed to the factors of the other half.

    Args:
        windows: how a map is cut into windows.
        groups: S.
    """

    def __init__(self, windows: Windows, groups: int) -> None:
        super().__init__()
        self.windows = windows
        height, width = windows.trained
        # Kernels start as blurs about neighbours drawn at random, one position wide.
        self.centers = nn.Parameter(torch.randn(groups, 2))
        self.spreads = nn.Parameter(torch.eye(2) + 0.01 * torch.randn(groups, 2, 2))
        self.bias = nn.Parameter(torch.ones(1, height * width))

    def forward(self, x: Tensor) -> Tensor:
        return self.windows.mixed(x, self.mix)

    def mix(self, x: Tensor, window: tuple[int, int]) -> Tensor:
        """Mix the positions of windows (M, C, P) of size ``window``."""
        kernel = positional_kernel(self.centers, self.spreads, window).to(x)
        bias = self.windows.resampled(self.bias, window).to(x)
        return spatial_fc(x, kernel, bias.expand(len(kernel), -1))


class PosMLPBlock(nn.Module):
    """A gated channel MLP behind a norm and beside a shortcut, (N, H, W, C) -> (N, H, W, C)."""

    def __init__(
        self,
        channels: int,
        mlp_ratio: int,
        windows: Windows,
        groups: int,
        *,
        drop_rate: float,
        drop_path: float,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        hidden = mlp_ratio * channels
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.fc1 = Linear(channels, hidden)
        self.act = build_activation(act_cfg)
        self.gate = PositionalGate(windows, groups)
        self.fc2 = Linear(hidden // 2, channels)
        self.drop = nn.Dropout(drop_rate)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        mixed, gated = halves(self.fc1(self.norm(x)))
        branch = self.fc2(self.act(gated) * self.gate(self.act(mixed)))
        return x + self.drop_path(self.drop(branch))


class ConvStem(nn.Sequential):
    """Two convolutions of stride 2 and one of stride 1: (N, C_in, H, W) -> (N, H / 4, W / 4, C)."""

    def __init__(self, in_channels: int, channels: int, act_cfg: dict) -> None:
        def embed(inputs: int, outputs: int, size: int, stride: int, act: bool) -> ConvEmbed:
            return ConvEmbed(
                inputs,
                outputs,
                kernel_size=size,
                stride=stride,
                padding=size // 2,
                norm=nn.BatchNorm2d(outputs, eps=EPS),
                act=build_activation(act_cfg) if act else None,
            )

        super().__init__(
            embed(in_channels, channels // 2, 3, 2, act=True),
            embed(channels // 2, channels, 3, 2, act=True),
            embed(channels, channels, 1, 1, act=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).permute(0, 2, 3, 1).contiguous()


class Downsample(nn.Module):
    """A depthwise convolution of stride 2 and a norm: (N, H, W, C) -> (N, H / 2, W / 2, C')."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 3, 2, padding=1, groups=in_channels)
        self.norm = nn.LayerNorm(out_channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@MODELS.register_module()
class PosMLP(WindowBackbone):
    """PosMLP as a pyramid of maps with strides 4, 8, 16 and 32.

    It accepts images (N, in_channels, H, W) of any size from 32 x 32 up and returns one map
    (N, C, ceil(H / s), ceil(W / s)) of stride s per entry of ``out_indices``, taken before the
    downsample that follows the stage, each through an output norm of its own; ``stage_info`` has
    channels and strides. The published classifier is ``out_indices=(3,)`` with average pooling and
    a linear head.

    The published variants fill their windows on images whose sides are multiples of 224; there all
    modes are the same, bit for bit.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`PosMLPArch`.
        grid_mode: ``'window'``, ``'resize'`` or ``'strict'``; see :class:`WindowBackbone`. With
            ``'resize'`` the kernels are evaluated for the windows' size and the bias is
            interpolated; the weights of its deploy form are others than without.
        drop_rate: probability to drop a value of a block's last layer in training. Published:
            0.0233.
        **settings: see :class:`BackboneSettings`.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, a setting or ``drop_rate`` out of range,
            and in ``forward`` for an image too small or, with ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS

    def __init__(
        self,
        arch: str | dict | PosMLPArch = 't',
        *,
        grid_mode: GridMode = 'window',
        drop_rate: float = 0.0,
        **settings: Unpack[BackboneSettings],
    ) -> None:
        check_rate('drop_rate', drop_rate)
        sizes = resolve_arch(arch, ARCHS)
        super().__init__(
            sizes,
            channels=sizes.dims,
            strides=STRIDES,
            windows=sizes.windows,
            grid_mode=grid_mode,
            **settings,
        )

        def block(i: int, drop_path: float) -> PosMLPBlock:
            return PosMLPBlock(
                sizes.dims[i],
                sizes.mlp_ratios[i],
                self.windows(i),
                sizes.groups[i],
                drop_rate=drop_rate,
                drop_path=drop_path,
                act_cfg=self.act_cfg,
            )

        rates, dims = drop_path_rates(self.drop_path_rate, sizes.depths), sizes.dims
        stages = range(self.num_stages)
        self.stem = ConvStem(self.in_channels, dims[0], self.act_cfg)
        self.downsamples = nn.ModuleList(Downsample(dims[i - 1], dims[i]) for i in stages[1:])
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(i, rate) for rate in rates[i])) for i in stages
        )
        self.out_norms = nn.ModuleDict(
            {str(i): nn.LayerNorm(dims[i], eps=EPS) for i in self.out_indices}
        )
        self.finish()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the levels that ``stage_info`` describes."""
        return tuple(x.permute(0, 3, 1, 2) for x in super().forward(x))
