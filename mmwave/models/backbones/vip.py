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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_before
from mmwave.models.layers import ConvEmbed, DropPath, Linear, LinearMLP, affine_of
from mmwave.models.layers.channel_mlp import blend_added, mlp_added, spare
from mmwave.models.layers.lean import keep, runner
from mmwave.models.layers.token_grid import TokenGrid
from mmwave.registry import MODELS

from .base import check_positive, drop_path_rates, init_linear, per_stage, resolve_arch
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

    def forward(
        self,
        x: Tensor,
        grid: TokenGrid,
        norm: nn.Module | None = None,
        run: Callable[..., Any] = keep,
    ) -> Tensor:
        """Mix ``norm(x)``; ``run`` is how, see :func:`mmwave.models.layers.lean.runner`."""
        branches = run(lambda normed: self.project(normed, grid, run), norm, x)
        return self.blend(*branches, grid)

    def project(
        self, x: Tensor, grid: TokenGrid, run: Callable[..., Any] = keep
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The height, width and channel branches, each as large as ``x``."""
        h, w = (self._along(x, grid, axis, run) for axis in (1, 2))
        return h, w, self.channel(x)

    def blend(self, h: Tensor, w: Tensor, c: Tensor, grid: TokenGrid) -> Tensor:
        """Sum the branches with weights per image and channel that add up to one."""
        # The release lays the three weights of a channel side by side: (N, C * 3).
        weights = self.reweight(grid.mean(h + w + c)).unflatten(1, (-1, 3)).softmax(dim=2)
        weight_h, weight_w, weight_c = (grid.spread(weight) for weight in weights.unbind(2))
        # Kept in training, lean or not: of all that is kept it would take longest to compute again.
        blended = (h * weight_h).addcmul(w, weight_w).addcmul(c, weight_c)
        return self.proj(blended)

    def _along(self, x: Tensor, grid: TokenGrid, axis: int, run: Callable[..., Any]) -> Tensor:
        """The height (axis 1) or width (axis 2) branch."""
        side = grid.window[axis - 1]

        def segments(x: Tensor) -> Tensor:
            # Segments of C / side channels: channel = segment * (C / side) + its place in it.
            return swapped(grid.trained(x, axes=(axis,)).unflatten(3, (side, -1)), axis)

        mixed = run(self.height if axis == 1 else self.width, segments, x)
        return grid.back(swapped(mixed.unflatten(3, (side, -1)), axis), axes=(axis,))


def swapped(x: Tensor, axis: int) -> Tensor:
    """Segments (M, H, W, S, C / S) with ``axis`` and S exchanged, the last two then joined.

    On the way in positions of the axis and channels of a segment come to lie side by side.
    """
    if spare(x):
        # A segment is a few values: as fewer wider ones it is copied in half the time.
        for wide in (torch.int64, torch.int32):
            if x.shape[4] * x.element_size() % wide.itemsize == 0:
                moved = x.contiguous().view(wide).transpose(axis, 3).contiguous()
                return moved.flatten(3).view(x.dtype)
    return x.transpose(axis, 3).flatten(3)


class FusedPermuteMLP(PermuteMLP):
    """The deploy form, shortcut included; the blend's weights are laid (N, 3 * C)."""

    def forward(self, x: Tensor, shortcut: Tensor, grid: TokenGrid) -> Tensor:
        h, w, c = self.project(x, grid)
        total = h + w
        total = total.add_(c) if spare(total, c) else total + c
        weights = self.reweight(grid.mean(total)).unflatten(1, (3, -1)).softmax(dim=1)
        weight_h, weight_w, weight_c = (grid.spread(weight) for weight in weights.unbind(dim=1))
        return blend_added(shortcut, [c, h, w], [weight_c, weight_h, weight_w], self.proj)


class ViPBlock(nn.Module):
    """Permute-MLP and channel MLP, each behind a norm and beside a shortcut."""

    def __init__(
        self,
        channels: int,
        mlp_ratio: int,
        drop_path: float,
        act_cfg: dict,
        lean: bool = True,
    ) -> None:
        super().__init__()
        self.run = runner(lean)
        self.norm1 = nn.LayerNorm(channels)
        self.mixer = PermuteMLP(channels, act_cfg)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = LinearMLP(channels, mlp_ratio * channels, channels, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.apply(init_linear)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        branch = self.mixer(x, grid, self.norm1, self.run)
        x = x + grid.dropped(branch, self.drop_path)
        return x + grid.dropped(self.mlp(x, self.norm2, self.run), self.drop_path)

    def deploy_state(self) -> dict[str, Tensor]:
        """The tensors of :class:`FusedViPBlock` that compute the same."""
        state = {k: v for k, v in self.named_parameters() if not k.startswith('norm2.')}
        state['mlp.fc1.weight'], state['mlp.fc1.bias'] = fuse_norm_before(
            self.mlp.fc1.weight, self.mlp.fc1.bias, *affine_of(self.norm2)
        )
        for name in ('mixer.reweight.fc2.weight', 'mixer.reweight.fc2.bias'):
            state[name] = state[name].unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
        return state


class FusedViPBlock(nn.Module):
    """The block's deploy form.

    The first norm keeps its scale: segments share a matrix, into which those of their channels do
    not fold.
    """

    def __init__(self, channels: int, mlp_ratio: int, act_cfg: dict) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.mixer = FusedPermuteMLP(channels, act_cfg)
        self.mlp = LinearMLP(channels, mlp_ratio * channels, channels, act_cfg)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        x = self.mixer(self.norm1(x), x, grid)
        return mlp_added(x, F.layer_norm(x, x.shape[3:]), self.mlp)


class Transition(ConvEmbed):
    """Halve a map: (M, H, W, C_in) -> (M, H / 2, W / 2, C_out)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, kernel_size=2, stride=2, padding=0, norm=None)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).contiguous()


@MODELS.register_module()
class ViP(GridBackbone):
    """Vision Permutator as four maps of strides 7 and 14.

    Takes images (N, in_channels, H, W) of any size from 32 x 32 up and gives one map
    (N, C, ceil(H / s), ceil(W / s)) of stride s per entry of ``out_indices``, taken before the
    transition that follows the stage, each through an output norm of its own; ``stage_info`` tells
    channels and strides. A feature pyramid is made by a neck, ``mmwave.SimpleFeaturePyramid`` of
    the last map. The published classifier is ``out_indices=(3,)`` with average pooling and a linear
    head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`ViPArch`.
        in_channels: channels of the images.
        out_indices: stages to output, increasing; negative ones count from the last.
        grid_mode: ``'window'``, ``'resize'`` or ``'strict'``; see :class:`GridBackbone`. The
            branches are blended by means over the whole image: in windows, the one path between
            them.
        drop_path_rate: probability to drop the last block's branches in training; it grows linearly
            from 0 over the blocks of all stages.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        norm_eval: keep every batch norm in eval mode during training; ViP has none.
        with_cp: compute activations again in the backward pass instead of storing them.
        lean: compute norms and activations again in the backward pass; see :class:`MLPBackbone`.
        deploy: build the deploy form: the channel MLPs' norms folded, results written over what is
            not needed any more. It is for inference and takes the weights that
            :func:`mmwave.deploy.to_deploy` makes.
        act_cfg: activation of the channel MLPs and the blend. Published: GELU.
        init_cfg: mmengine init config; see :class:`MLPBackbone`.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, ``out_indices``, ``frozen_stages`` or
            ``drop_path_rate`` out of range, and in ``forward`` for an image too small or, with
            ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(type='GELU')})
    kept_settings = (*GridBackbone.kept_settings, 'grid_mode')
    form_marks = ('.mixer.proj.weight', '.norm2.weight')

    def __init__(
        self,
        arch: str | dict | ViPArch = 's7',
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        grid_mode: GridMode = 'window',
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        lean: bool = True,
        deploy: bool = False,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        super().__init__(
            channels=sizes.dims,
            strides=sizes.strides,
            grids=sizes.grids,
            grid_mode=grid_mode,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            lean=lean,
            deploy=deploy,
            init_cfg=init_cfg,
        )
        self.arch = sizes
        self.in_channels = in_channels
        self.act_cfg = dict(act_cfg or dict(type='GELU'))
        rates = drop_path_rates(drop_path_rate, sizes.depths)
        stages, dims, patch = range(self.num_stages), sizes.dims, sizes.patch_size
        self.stem = ConvEmbed(
            in_channels, dims[0], kernel_size=patch, stride=patch, padding=0, norm=None
        )
        self.downsamples = nn.ModuleList(
            nn.Identity() if self._same(i) else Transition(dims[i - 1], dims[i]) for i in stages[1:]
        )

        def block(dim: int, drop_path: float) -> nn.Module:
            if deploy:
                return FusedViPBlock(dim, sizes.mlp_ratio, self.act_cfg)
            return ViPBlock(dim, sizes.mlp_ratio, drop_path, self.act_cfg, lean)

        self.stages = nn.ModuleList(
            nn.Sequential(*(block(dims[i], rate) for rate in rates[i])) for i in stages
        )
        self.out_norms = nn.ModuleDict({str(i): nn.LayerNorm(dims[i]) for i in self.out_indices})
        self.freeze()

    def deploy_state(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        others = {k: v for k, v in self.state_dict().items() if not k.startswith('stages.')}
        return others | self.deployed_blocks(), (
            f'the norms in front of {self.num_blocks} channel MLPs into their first layers',
        )
