"""RepMLPNet.

Paper: Ding, Chen, Zhang, Han, Ding: RepMLPNet: Hierarchical Vision MLP with Re-parameterized
Locality, CVPR 2022, arXiv:2112.11081.
Published code: DingXiaoH/RepMLP at commit 3eff13f, ``repmlpnet.py`` (MIT).

A map is cut into windows, and the positions of a window are mixed by full matrices, the channel
perceptron: few of them, shared by groups of channels. The global perceptron weighs channels by the
mean of the whole map. The local perceptron adds small depthwise convolutions inside the windows,
whose locality is easy to learn; being linear, they fold into the matrices after training. A channel
MLP follows. Four stages with strides 4, 8, 16 and 32 make a pyramid.

Shapes: N images, C channels, H x W positions of the map, h x w of a window, P = h * w, S matrices.

Kept from the release: kernels of the stem and the downsamples equal their strides, without padding,
and end in ReLU; channel c uses matrix c mod S; one output norm and factor per matrix, not per
channel; the global perceptron looks at the normed map.

Differences from the published release: names of parameters; dense outputs, each with an output
norm; drop path; images of any size, see ``grid_mode``. Published weights, converted by
``tools/convert_checkpoint.py``, give the same outputs on one window. On more, the release reads
rows that are ordered (image, window, channel group) back as (image, channel group, window), so that
windows and channels are exchanged; here every window stays where it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from mmwave.models.layers import (
    Conv2d,
    ConvEmbed,
    DropPath,
    LinearMLP,
    batch_norms,
    build_activation,
    build_norm,
)
from mmwave.models.layers.windows import (
    MapGrid,
    filled_sizes,
    is_filled,
    map_grids,
    window_grids,
)
from mmwave.ops import conv2d, spatial_fc
from mmwave.registry import MODELS
from mmwave.structures import SizeConstraint

from .arch import check_positive, per_stage, resolve_arch
from .base import BackboneSettings, MLPBackbone, drop_path_rates

STRIDES = (4, 8, 16, 32)
GRID_MODES = ('window', 'strict')


@dataclass(frozen=True, kw_only=True)
class RepMLPNetArch:
    """Sizes of a RepMLPNet.

    Attributes:
        depths: blocks of each of the four stages.
        dims: channels of each stage.
        windows: (h, w) of each stage's windows in positions; one number stands for a square.
        share_sets: S, matrices of each stage's channel perceptrons; divides the stage's channels.
        kernels: sides of the local perceptron's kernels, odd and increasing; none is allowed.
        reduction: by how much the global perceptron squeezes the channels.
        mlp_ratio: hidden channels of the channel MLPs, in multiples of the channels.
    """

    depths: Sequence[int]
    dims: Sequence[int]
    windows: Sequence[int | tuple[int, int]]
    share_sets: Sequence[int]
    kernels: Sequence[int] = (1, 3)
    reduction: int = 4
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        for name in ('depths', 'dims', 'share_sets'):
            object.__setattr__(self, name, per_stage(name, getattr(self, name), len(STRIDES)))
        check_positive(self, 'reduction', 'mlp_ratio')
        if isinstance(self.windows, int):
            raise ValueError(f'windows={self.windows} must be one or two numbers per stage')
        pairs = tuple(tuple(w) if isinstance(w, Sequence) else (w, w) for w in self.windows)
        whole = all(isinstance(side, int) and side > 0 for pair in pairs for side in pair)
        if len(pairs) != len(STRIDES) or not whole or any(len(p) != 2 for p in pairs):
            raise ValueError(
                f'windows={pairs} must be {len(STRIDES)} pairs of positive numbers, one per stage'
            )
        object.__setattr__(self, 'windows', pairs)
        kernels = (self.kernels,) if isinstance(self.kernels, int) else tuple(self.kernels)
        odd = all(isinstance(k, int) and k > 0 and k % 2 for k in kernels)
        if not odd or list(kernels) != sorted(set(kernels)):
            raise ValueError(f'kernels={kernels} must be odd numbers in increasing order')
        object.__setattr__(self, 'kernels', kernels)
        for dim, sets in zip(self.dims, self.share_sets, strict=True):
            if dim % sets or dim % self.reduction:
                raise ValueError(
                    f'dims={self.dims} must be multiples of share_sets={self.share_sets} '
                    f'and of reduction={self.reduction}'
                )

    def filled_sizes(self) -> SizeConstraint:
        """Image sizes whose maps are filled by the windows of every stage."""
        return filled_sizes(STRIDES, self.windows)


# The model functions of the release's repmlpnet.py.
_T = RepMLPNetArch(
    depths=(2, 2, 6, 2),
    dims=(64, 128, 256, 512),
    windows=(56, 28, 14, 7),
    share_sets=(1, 4, 16, 128),
)
_B = replace(_T, depths=(2, 2, 12, 2), dims=(96, 192, 384, 768), share_sets=(1, 4, 32, 128))
_256 = (64, 32, 16, 8)

ARCHS: Mapping[str, RepMLPNetArch] = MappingProxyType(
    {
        't224': _T,  # create_RepMLPNet_T224
        't256': replace(_T, windows=_256),
        'b224': _B,
        'b256': replace(_B, windows=_256),
        'd256': replace(_T, depths=(2, 2, 18, 2), dims=(80, 160, 320, 640), windows=_256),
        'l256': replace(_B, depths=(2, 2, 18, 2), share_sets=(1, 4, 32, 256), windows=_256),
    }
)


class GlobalPerceptron(LinearMLP):
    """Weigh channels, (N, C) means -> (N, C) factors between 0 and 1."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__(channels, channels // reduction, channels, dict(type='ReLU'))

    def forward(self, means: Tensor) -> Tensor:
        return super().forward(means).sigmoid()


def norm_by_set(norm: nn.Module, x: Tensor, sets: int) -> Tensor:
    """Norm (M, C, H, W) with one statistic per matrix: channel c belongs to c mod S."""
    return norm(x.reshape(-1, sets, *x.shape[2:])).reshape(x.shape)


class ChannelPerceptron(nn.Module):
    """Mix the positions of windows (N * T, C, h, w) by S matrices that the channels share.

    It returns the stage's own form: what lies outside the map is cut off before the norm sees it.
    """

    def __init__(self, window: tuple[int, int], sets: int) -> None:
        super().__init__()
        positions = math.prod(window)
        self.weight = nn.Parameter(torch.empty(sets, positions, positions))
        # As torch initialises the weight of the release's convolution.
        nn.init.uniform_(self.weight, -(positions**-0.5), positions**-0.5)
        self.norm = build_norm('BN', sets)

    def forward(self, windows: Tensor, grid: MapGrid) -> Tensor:
        mixed = spatial_fc(windows.flatten(2), self.weight).view(windows.shape)
        return norm_by_set(self.norm, grid.from_windows(mixed), len(self.weight))


class SharedConv(Conv2d):
    """A depthwise convolution whose S kernels channels share: channel c has kernel c mod S."""

    def __init__(self, sets: int, kernel_size: int) -> None:
        super().__init__(sets, sets, kernel_size, padding=kernel_size // 2, groups=sets, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        # Kernels repeated for all channels, not channels as a batch for S kernels: with few kernels
        # the convolution of many small batches takes several times as long.
        channels = x.shape[1]
        kernels = self.weight.repeat(channels // len(self.weight), 1, 1, 1)
        return conv2d(x, kernels, padding=self.padding, groups=channels)


class LocalPerceptron(nn.ModuleDict):
    """Add up depthwise convolutions inside windows, with kernels that channels share.

    It maps as :class:`ChannelPerceptron` does.
    """

    def __init__(self, kernels: Sequence[int], sets: int) -> None:
        super().__init__(
            {
                str(k): nn.ModuleDict({'conv': SharedConv(sets, k), 'norm': build_norm('BN', sets)})
                for k in kernels
            }
        )
        self.sets = sets

    def forward(self, windows: Tensor, grid: MapGrid) -> Tensor:
        first, *others = (
            norm_by_set(branch['norm'], grid.from_windows(branch['conv'](windows)), self.sets)
            for branch in self.values()
        )
        return sum(others, first)


class ConvFFN(nn.Module):
    """The release's channel MLP: two 1 x 1 convolutions, each with a norm, around a GELU."""

    def __init__(self, channels: int, hidden: int, act_cfg: dict) -> None:
        super().__init__()
        self.fc1 = Conv2d(channels, hidden, 1, bias=False)
        self.norm1 = build_norm('BN', hidden)
        self.act = build_activation(act_cfg)
        self.fc2 = Conv2d(hidden, channels, 1, bias=False)
        self.norm2 = build_norm('BN', channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.fc2(self.act(self.norm1(self.fc1(x)))))


class RepMLPBlock(nn.Module):
    """The paper's RepMLP block and FFN block, each behind a norm and beside a shortcut."""

    def __init__(self, arch: RepMLPNetArch, stage: int, *, drop_path: float, act_cfg: dict) -> None:
        super().__init__()
        channels, sets = arch.dims[stage], arch.share_sets[stage]
        self.window = arch.windows[stage]
        self.norm1 = build_norm('BN', channels)
        self.global_perceptron = GlobalPerceptron(channels, arch.reduction)
        self.channel_perceptron = ChannelPerceptron(self.window, sets)
        self.local_perceptron = LocalPerceptron(arch.kernels, sets) if arch.kernels else None
        self.norm2 = build_norm('BN', channels)
        self.ffn = ConvFFN(channels, arch.mlp_ratio * channels, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else None

    def forward(self, x: Tensor, grid: MapGrid) -> Tensor:
        windows = grid.windows(self.norm1(x))
        factors = self.global_perceptron(grid.mean(windows))
        mixed = self.channel_perceptron(windows, grid)
        if self.local_perceptron is not None:
            mixed = mixed + self.local_perceptron(windows, grid)
        if self.drop_path is not None:
            factors = self.drop_path(factors)  # by image, not by window
        x = x.addcmul(mixed, grid.spread(factors))
        return x + grid.dropped(self.ffn(self.norm2(x)), self.drop_path)


@MODELS.register_module()
class RepMLPNet(MLPBackbone):
    """RepMLPNet as a pyramid of maps with strides 4, 8, 16 and 32.

    It accepts images (N, in_channels, H, W) and returns one map per entry of ``out_indices``, taken
    before the downsample that follows the stage, each through an output norm of its own;
    ``stage_info`` has channels and strides. The map of stride s has ceil(H / s) x ceil(W / s)
    positions. The published classifier is ``out_indices=(3,)`` with average pooling and a linear
    head.

    The published variants have windows of 224 or 256 pixels, as their names say, at every stage.
    Such a map is cut once, on the image, and its windows are a longer batch to all layers. Where
    batch norms take statistics of images that need padding, each block cuts its map instead and
    joins it in front of every norm: padding enters no statistic.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`RepMLPNetArch`.
        grid_mode: ``'window'`` accepts any size from 32 x 32 up: maps are cut into windows, the
            last ones filled up with zeros behind the norm in front of the perceptrons; the global
            perceptron averages over the map alone. ``'strict'`` accepts sizes that windows fill.
        **settings: see :class:`BackboneSettings`. Published: no drop path.

    Attributes:
        cut_once: whether maps may be cut on the image; false where the windows of two stages show
            different pixels. Set it to False to have every block cut its map always.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, a setting out of range, and in ``forward``
            for an image too small or, with ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS

    def __init__(
        self,
        arch: str | dict | RepMLPNetArch = 't224',
        *,
        grid_mode: Literal['window', 'strict'] = 'window',
        **settings: Unpack[BackboneSettings],
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        if grid_mode not in GRID_MODES:
            raise ValueError(
                f'unknown grid_mode {grid_mode!r}: RepMLPNet has {", ".join(GRID_MODES)}'
            )
        super().__init__(
            sizes,
            channels=sizes.dims,
            strides=STRIDES,
            size_constraint=sizes.filled_sizes() if grid_mode == 'strict' else None,
            **settings,
        )
        self.grid_mode = grid_mode
        halves = zip(sizes.windows, sizes.windows[1:], strict=False)
        self.cut_once = all(a == (2 * h, 2 * w) for a, (h, w) in halves)

        def embed(i: int) -> ConvEmbed:
            channels, side = (sizes.dims[i - 1], 2) if i else (self.in_channels, STRIDES[0])
            return ConvEmbed(
                channels,
                sizes.dims[i],
                kernel_size=side,
                stride=side,
                padding=0,
                norm=build_norm('BN', sizes.dims[i]),
                bias=False,
                act=nn.ReLU(),
            )

        def block(i: int, drop_path: float) -> RepMLPBlock:
            return RepMLPBlock(sizes, i, drop_path=drop_path, act_cfg=self.act_cfg)

        rates = drop_path_rates(self.drop_path_rate, sizes.depths)
        stages = range(self.num_stages)
        self.stem = embed(0)
        self.downsamples = nn.ModuleList(embed(i) for i in stages[1:])
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(i, rate) for rate in rates[i])) for i in stages
        )
        self.out_norms = nn.ModuleDict(
            {str(i): build_norm('BN', sizes.dims[i]) for i in self.out_indices}
        )
        self.finish()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the levels that ``stage_info`` describes."""
        self.check_input(x)
        outputs = []
        x, grids = self._enter(x)
        for i, grid in enumerate(grids):
            if i:
                x = self.run_part(self.downsamples[i - 1], grids[i - 1].pad_even(x))
            else:
                x = self.run_part(self.stem, x)
            x = self.run_blocks(i, x, grid)
            if i in self.out_indices:
                outputs.append(self.out_norms[str(i)](grid.to_map(x)))
        return tuple(outputs)

    def _enter(self, x: Tensor) -> tuple[Tensor, list[MapGrid]]:
        """What the stem is called with, and the grid of every stage."""
        strides, windows = STRIDES[: self.num_stages], self.arch.windows
        height, width = windows[0]
        pixels = STRIDES[0] * height, STRIDES[0] * width
        filled = self.grid_mode == 'strict' or is_filled(x.shape[2:], pixels)
        if self.cut_once and (filled or not self._takes_statistics()):
            return window_grids(x, strides, windows, filled=filled)
        return map_grids(x, strides, windows)

    def _takes_statistics(self) -> bool:
        """Whether any norm in front of an output norm normalises by the batch at hand."""
        parts = (self.stem, self.downsamples, self.stages)
        return any(norm.training for part in parts for norm in batch_norms(part))

    def deploy_form(self) -> tuple[MLPBackbone, tuple[str, ...]]:
        twin, folded = super().deploy_form()
        twin.cut_once = self.cut_once
        return twin, folded
