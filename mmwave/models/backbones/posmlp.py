"""PosMLP.

Paper: Wang, Hao, Gao, Zhang, Wang, Mu, He: Parameterization of Cross-Token Relations with Relative
Positional Encoding for Vision MLP, ACM Multimedia 2022, arXiv:2207.07284.
Published code: Zhicaiwww/PosMLP at commit 654f020, ``models/posmlp.py``, ``models/posmlp2D.py`` and
``models/patch_downsample.py``.

A block is one channel MLP. Between its two layers the hidden channels are split in halves, and one
half, mixed over the positions of a window, gates the other, as in gMLP. The matrices that mix are
not learnt entry by entry but computed of relative positions: row p is a softmax over q of a
quadratic form of the offset from p to q, a Gaussian with a centre and a spread. A group of channels
has one of each, six numbers. Four stages with strides 4, 8, 16 and 32 make a pyramid.

Shapes: N images, C channels, H x W positions of the map, h x w of a window, P = h * w, S groups.

Kept from the release, since its weights were trained so:
- of an offset the first number counts columns to the right, the second rows upwards;
- channel c belongs to group c mod S;
- the first half of the hidden channels is mixed, the second is gated;
- every norm has an epsilon of 1e-6.

Differences from the published release: names of parameters; dense outputs, each with an output
norm; images of any size, see ``grid_mode``; kernels are computed of the offsets, where the release
holds a table of their products per block; initial values. Published weights, converted by
``tools/convert_checkpoint.py``, give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
from mmcv.cnn import build_activation_layer
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mmwave.models.layers import ConvEmbed
from mmwave.models.layers.token_grid import resampling
from mmwave.models.layers.windows import counts, cut, filled_sizes, join
from mmwave.ops import spatial_fc
from mmwave.registry import MODELS
from mmwave.structures import SizeConstraint

from .base import MLPBackbone, check_rate, drop_path_rates, init_linear, per_stage, resolve_arch
from .grid import GridMode, check_grid_mode, grid_pair

STRIDES = (4, 8, 16, 32)
EPS = 1e-6


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


def positional_kernel(centers: Tensor, spreads: Tensor, window: tuple[int, int]) -> Tensor:
    r"""How much of position q goes into position p of a window, by their offset alone.

    .. math:: K_{s,p,q} \propto \exp(-\tfrac12 (d - \mu_s)^T A_s A_s^T (d - \mu_s)),
        \quad \sum_q K_{s,p,q} = 1

    d is the offset from p to q: columns to the right, then rows upwards.

    Args:
        centers: mu, (S, 2), in positions.
        spreads: A, (S, 2, 2), in one over positions: A A^T is the inverse of a covariance.
        window: h and w, positions numbered row by row.

    Returns:
        (S, P, P), computed at least in float32.

    Source: Zhicaiwww/PosMLP ``models/posmlp2D.py`` (generalised quadratic positional encoding).
    """
    exact = torch.promote_types(centers.dtype, torch.float32)
    centers, spreads = centers.to(exact), spreads.to(exact)
    rows, columns = (torch.arange(n, device=centers.device, dtype=exact) for n in window)
    right = (columns - columns[:, None]) - centers[:, 0, None, None]  # (S, w of p, w of q)
    up = (rows[:, None] - rows) - centers[:, 1, None, None]  # (S, h of p, h of q)
    # Written out, since autocast would lower the precision of matrix products.
    diagonal = spreads.square().sum(dim=2)[..., None, None]
    beside = (spreads[:, 0] * spreads[:, 1]).sum(dim=1)[:, None, None]
    along_w = (diagonal[:, 0] * right.square())[:, None, :, None, :]
    along_h = (diagonal[:, 1] * up.square())[:, :, None, :, None]
    crossed = (beside * up)[:, :, None, :, None] * right[:, None, :, None, :]
    forms = along_w + along_h + 2 * crossed  # (S, h, w, h, w)
    return (forms.flatten(3).flatten(1, 2) / -2).softmax(dim=2)


def spans(side: int, step: int) -> list[tuple[int, int]]:
    """Cut an axis into windows whose sides come as near to ``step`` positions as they can.

    Returns:
        (windows, their side), sides as equal as can be: one or two, the larger first.
    """
    count = max(side // step, 1)
    if side / count - step > step - side / (count + 1):  # one more would be nearer
        count += 1
    short, longer = side // count, side % count
    return [(n, s) for n, s in ((longer, short + 1), (count - longer, short)) if n]


class PositionalGate(nn.Module):
    """The paper's positional spatial gating unit, (N, H, W, 2 C) -> (N, H, W, C).

    Args:
        window: h and w.
        groups: S.
        resize: mix windows of the map's own sizes instead of filling up trained ones.
    """

    def __init__(self, window: tuple[int, int], groups: int, resize: bool) -> None:
        super().__init__()
        self.window, self.resize = window, resize
        # Kernels start as blurs about neighbours drawn at random, one position wide.
        self.centers = nn.Parameter(torch.randn(groups, 2))
        self.spreads = nn.Parameter(torch.eye(2) + 0.01 * torch.randn(groups, 2, 2))
        self.bias = nn.Parameter(torch.ones(1, window[0] * window[1]))

    def forward(self, x: Tensor) -> Tensor:
        mixed, gated = x.chunk(2, dim=3)
        return gated * (self.mix_map(mixed) if self.resize else self.mix(mixed, self.window))

    def mix_map(self, x: Tensor) -> Tensor:
        """Mix a map (N, H, W, C) in windows that fill it, of up to two heights and two widths."""
        rows, columns = (spans(n, s) for n, s in zip(x.shape[1:3], self.window, strict=True))
        bands = x.split([n * h for n, h in rows], dim=1)
        mixed = []
        for (_, h), band in zip(rows, bands, strict=True):
            parts = band.split([n * w for n, w in columns], dim=2)
            done = [self.mix(x, (h, w)) for (_, w), x in zip(columns, parts, strict=True)]
            mixed.append(torch.cat(done, dim=2))
        return torch.cat(mixed, dim=1)

    def mix(self, x: Tensor, window: tuple[int, int]) -> Tensor:
        """Mix a map (N, H, W, C) in windows, the last ones filled up with zeros."""
        size = (x.shape[1], x.shape[2])
        shape = counts(size, window)
        kernel = positional_kernel(self.centers, self.spreads, window).to(x)
        bias = self.bias_of(window).to(x).expand(kernel.shape[:2])
        x = cut(x.permute(0, 3, 1, 2), window, shape)
        x = spatial_fc(x.flatten(2), kernel, bias).unflatten(2, window)
        return join(x, size, shape).permute(0, 2, 3, 1)

    def bias_of(self, window: tuple[int, int]) -> Tensor:
        """The bias of a window's positions, interpolated where it is no trained one: (1, P)."""
        if window == self.window:
            return self.bias
        bias = self.bias.view(self.window)
        rows, columns = (
            resampling(source, target, like=bias)
            for source, target in zip(self.window, window, strict=True)
        )
        return (rows @ bias @ columns.T).view(1, -1)


class PosMLPBlock(nn.Module):
    """A gated channel MLP behind a norm and beside a shortcut, (N, H, W, C) -> (N, H, W, C)."""

    def __init__(
        self,
        stage: int,
        arch: PosMLPArch,
        *,
        drop_rate: float,
        drop_path: float,
        act_cfg: dict,
        resize: bool,
    ) -> None:
        super().__init__()
        channels = arch.dims[stage]
        hidden = channels * arch.mlp_ratios[stage]
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.fc1 = nn.Linear(channels, hidden)
        self.act = build_activation_layer(act_cfg)
        self.gate = PositionalGate(arch.windows[stage], arch.groups[stage], resize)
        self.fc2 = nn.Linear(hidden // 2, channels)
        self.drop = nn.Dropout(drop_rate)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.fc2(self.gate(self.act(self.fc1(self.norm(x)))))
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
                act=build_activation_layer(act_cfg) if act else None,
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
        self.conv = nn.Conv2d(in_channels, out_channels, 3, 2, padding=1, groups=in_channels)
        self.norm = nn.LayerNorm(out_channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


@MODELS.register_module()
class PosMLP(MLPBackbone):
    """PosMLP as a pyramid of maps with strides 4, 8, 16 and 32.

    Takes images (N, in_channels, H, W) of any size from 32 x 32 up and gives one map
    (N, C, ceil(H / s), ceil(W / s)) of stride s per entry of ``out_indices``, taken before the
    downsample that follows the stage, each through an output norm of its own; ``stage_info`` tells
    channels and strides. The published classifier is ``out_indices=(3,)`` with average pooling and
    a linear head.

    The stem and the downsamples overlap windows, so every block cuts the map and joins it again.
    The published variants fill their windows on images whose sides are multiples of 224; there all
    modes are the same, bit for bit.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`PosMLPArch`.
        in_channels: channels of the images.
        out_indices: stages to output, increasing; negative ones count from the last.
        grid_mode: ``'window'``: maps are cut into windows of the trained size, the last ones filled
            up with zeros in front of the mixing. ``'resize'``: maps are cut into windows that fill
            them, as many as come nearest to the trained size; the kernels are evaluated for
            windows of that size and the bias is interpolated. A graph that is exported or traced in
            this mode holds for one image size. ``'strict'`` takes sizes that windows fill.
        drop_rate: probability to drop a value of a block's last layer in training. Published:
            0.0233.
        drop_path_rate: probability to drop the last block's branch in training; it grows linearly
            from 0 over the blocks of all stages.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        norm_eval: keep every batch norm, all of the stem, in eval mode during training.
        with_cp: compute activations again in the backward pass instead of storing them.
        act_cfg: activation of the stem and the blocks. Published: GELU.
        init_cfg: mmengine init config; see :class:`MLPBackbone`.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, ``out_indices``, ``frozen_stages``,
            ``drop_rate`` or ``drop_path_rate`` out of range, and in ``forward`` for an image too
            small or, with ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(type='GELU')})

    def __init__(
        self,
        arch: str | dict | PosMLPArch = 't',
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        grid_mode: GridMode = 'window',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        check_grid_mode('PosMLP', grid_mode)
        check_rate('drop_rate', drop_rate)
        super().__init__(
            channels=sizes.dims,
            strides=STRIDES,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            size_constraint=sizes.filled_sizes() if grid_mode == 'strict' else None,
            init_cfg=init_cfg,
        )
        self.arch = sizes
        self.in_channels = in_channels
        self.grid_mode = grid_mode
        self.act_cfg = dict(act_cfg or dict(type='GELU'))

        def block(stage: int, drop_path: float) -> PosMLPBlock:
            return PosMLPBlock(
                stage,
                sizes,
                drop_rate=drop_rate,
                drop_path=drop_path,
                act_cfg=self.act_cfg,
                resize=grid_mode == 'resize',
            )

        rates = drop_path_rates(drop_path_rate, sizes.depths)
        stages, dims = range(self.num_stages), sizes.dims
        self.stem = ConvStem(in_channels, dims[0], self.act_cfg)
        self.downsamples = nn.ModuleList(Downsample(dims[i - 1], dims[i]) for i in stages[1:])
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(i, rate) for rate in rates[i])) for i in stages
        )
        self.out_norms = nn.ModuleDict(
            {str(i): nn.LayerNorm(dims[i], eps=EPS) for i in self.out_indices}
        )
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the levels that ``stage_info`` describes."""
        return tuple(level.permute(0, 3, 1, 2) for level in super().forward(x))
