"""Vision Permutator (ViP).

Paper: Hou, Jiang, Yuan, Cheng, Yan, Feng: Vision Permutator: A Permutable MLP-Like Architecture for
Visual Recognition, IEEE TPAMI 2022, arXiv:2106.12368.
Published code: Andrew-Qibin/VisionPermutator at commit 2cab2ce, ``models/vip.py`` (MIT; its README
adds: for non-commercial use).

Heights, widths and channels are mixed in three branches. For the height branch the channels of a
column are split into segments of a few channels, and one matrix mixes a segment's channels at all
heights; the width branch does the same with rows. The three are blended per channel by weights
computed from the whole image, and a channel MLP follows. Four stages have strides 7 and 14 or 14
alone.

Shapes: N images, M maps or windows, C channels, H x W positions of the map, h x w of the trained
one; a segment of the height branch has C / h channels, one of the width branch C / w.

Kept from the release: the patch embedding and the transition between two stages have no norm;
matrices of the branches have no bias; norms have an epsilon of 1e-5.

Differences from the published release: names of parameters; dense outputs, each with an output
norm; images of any size, see ``grid_mode``. Published weights, converted by
``tools/convert_checkpoint.py``, give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Unpack

from torch import Tensor, nn

from mmwave.models.layers import (
    ConvEmbed,
    DropPath,
    Linear,
    LinearMLP,
    blended,
    branch_weights,
)
from mmwave.models.layers.token_grid import TokenGrid
from mmwave.registry import MODELS

from .arch import check_positive, per_stage, resolve_arch
from .base import BackboneSettings, drop_path_rates, init_linear
from .grid import GridBackbone, GridMode, grid_pair

STAGES = 4


@dataclass(frozen=True, kw_only=True)
class ViPArch:
    """Sizes of a Vision Permutator.

    Attributes:
        depths: blocks of each of the four stages.
        dims: channels of each stage, multiples of the sides of its grid.
        patch_size: pixels per position of the first stage.
        grids: (h, w) of each stage's trained map in positions, one number for a square; each as
            large as the one before or half of it.
        mlp_ratio: hidden channels of the channel MLPs, in multiples of the channels.
    """

    depths: Sequence[int]
    dims: Sequence[int]
    patch_size: int
    grids: Sequence[int | tuple[int, int]]
    mlp_ratio: int = 3

    def __post_init__(self) -> None:
        for name in ('depths', 'dims'):
            object.__setattr__(self, name, per_stage(name, getattr(self, name), STAGES))
        check_positive(self, 'patch_size', 'mlp_ratio')
        given = (self.grids,) if isinstance(self.grids, int) else tuple(self.grids)
        grids = tuple(grid_pair('grids', grid) for grid in given)
        halved = all(
            grid in (before, (before[0] / 2, before[1] / 2)) for before, grid in pairwise(grids)
        )
        if len(grids) != STAGES or not halved:
            raise ValueError(
                f'grids={given} must be {STAGES}, each as large as the one before or half of it'
            )
        object.__setattr__(self, 'grids', grids)
        for dim, grid in zip(self.dims, grids, strict=True):
            if dim % grid[0] or dim % grid[1]:
                raise ValueError(
                    f'dims={self.dims} must be multiples of the sides of grids={grids}'
                )
        for i in range(1, STAGES):
            if grids[i] == grids[i - 1] and self.dims[i] != self.dims[i - 1]:
                raise ValueError(
                    f'dims={self.dims} may change only where the map is halved: grids={grids}'
                )

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels per position of every stage."""
        return tuple(self.patch_size * self.grids[0][0] // grid[0] for grid in self.grids)


# The model functions of the release's vip.py; no weights of s14 were published.
_S7 = ViPArch(depths=(4, 3, 8, 3), dims=(192, 384, 384, 384), patch_size=7, grids=(32, 16, 16, 16))

ARCHS: Mapping[str, ViPArch] = MappingProxyType(
    {
        's14': replace(_S7, dims=(384,) * STAGES, patch_size=14, grids=(16,) * STAGES),  # vip_s14
        's7': _S7,  # vip_s7
        'm7': replace(  # vip_m7
            _S7, depths=(4, 3, 14, 3), dims=(256, 256, 512, 512), grids=(32, 32, 16, 16)
        ),
        'l7': replace(_S7, depths=(8, 8, 16, 4), dims=(256, 512, 512, 512)),  # vip_l7
    }
)


class PermuteMLP(nn.Module):
    """The paper's Permute-MLP with weighted branches, (M, h, w, C) -> (M, h, w, C)."""

    def __init__(self, channels: int, act_cfg: dict) -> None:
        super().__init__()
        self.height = Linear(channels, channels, bias=False)
        self.width = Linear(channels, channels, bias=False)
        self.channel = Linear(channels, channels, bias=False)
        self.reweight = LinearMLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = Linear(channels, channels)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        h = mixed_along(1, x, self.height, grid)
        w = mixed_along(2, x, self.width, grid)
        c = self.channel(x)
        weights = branch_weights(self.reweight, grid.mean(h + w + c))
        return self.proj(blended((h, w, c), [grid.spread(weight) for weight in weights]))


def mixed_along(axis: int, x: Tensor, mix: nn.Module, grid: TokenGrid) -> Tensor:
    """Mix heights (axis 1) or widths (axis 2) and the channels of a segment, all in one layer."""
    side = grid.window[axis - 1]
    segments = grid.to_trained(x, axes=(axis,)).unflatten(3, (side, -1))
    mixed = mix(swapped(segments, axis)).unflatten(3, (side, -1))
    return grid.from_trained(swapped(mixed, axis), axes=(axis,))


def swapped(segments: Tensor, axis: int) -> Tensor:
    """Segments (M, H, W, S, C / S) with ``axis`` and S exchanged, the last two axes then joined."""
    return segments.transpose(axis, 3).flatten(3)


class ViPBlock(nn.Module):
    """Permute-MLP and channel MLP, each behind a norm and beside a shortcut."""

    def __init__(self, channels: int, mlp_ratio: int, drop_path: float, act_cfg: dict) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.mixer = PermuteMLP(channels, act_cfg)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = LinearMLP(channels, mlp_ratio * channels, channels, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.apply(init_linear)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        x = x + grid.dropped(self.mixer(self.norm1(x), grid), self.drop_path)
        return x + grid.dropped(self.mlp(self.norm2(x)), self.drop_path)


class Transition(ConvEmbed):
    """Halve a map: (M, H, W, C_in) -> (M, H / 2, W / 2, C_out)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=2, stride=2, padding=0, norm=None)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


@MODELS.register_module()
class ViP(GridBackbone):
    """Vision Permutator as four maps of strides 7 and 14.

    It accepts images (N, in_channels, H, W) of any size from 32 x 32 up and returns one map
    (N, C, ceil(H / s), ceil(W / s)) of stride s per entry of ``out_indices``, taken before the
    transition that follows the stage, each through an output norm of its own; ``stage_info`` has
    channels and strides. A neck makes a feature pyramid: ``mmwave.SimpleFeaturePyramid`` of the
    last map. The published classifier is ``out_indices=(3,)`` with average pooling and a linear
    head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`ViPArch`.
        grid_mode: ``'window'``, ``'resize'`` or ``'strict'``; see :class:`GridBackbone`. The
            branches are blended by means over the whole image: in windows, the one path between
            them.
        **settings: see :class:`BackboneSettings`.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, a setting out of range, and in ``forward``
            for an image too small or, with ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS

    def __init__(
        self,
        arch: str | dict | ViPArch = 's7',
        *,
        grid_mode: GridMode = 'window',
        **settings: Unpack[BackboneSettings],
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        super().__init__(
            sizes,
            channels=sizes.dims,
            strides=sizes.strides,
            grids=sizes.grids,
            grid_mode=grid_mode,
            **settings,
        )
        rates = drop_path_rates(self.drop_path_rate, sizes.depths)
        stages, dims, patch = range(self.num_stages), sizes.dims, sizes.patch_size
        self.stem = ConvEmbed(
            self.in_channels, dims[0], kernel_size=patch, stride=patch, padding=0, norm=None
        )
        self.downsamples = nn.ModuleList(
            nn.Identity() if self._same(i) else Transition(dims[i - 1], dims[i]) for i in stages[1:]
        )

        def block(dim: int, drop_path: float) -> ViPBlock:
            return ViPBlock(dim, sizes.mlp_ratio, drop_path, self.act_cfg)

        self.stages = nn.ModuleList(
            nn.Sequential(*(block(dims[i], rate) for rate in rates[i])) for i in stages
        )
        self.out_norms = nn.ModuleDict({str(i): nn.LayerNorm(dims[i]) for i in self.out_indices})
        self.finish()
