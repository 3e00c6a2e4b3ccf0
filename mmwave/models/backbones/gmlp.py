"""gMLP.

Paper: Liu, Dai, So, Le: Pay Attention to MLPs, NeurIPS 2021, arXiv:2105.08050.
Published code: none by the authors; the weights in use are those of
huggingface/pytorch-image-models at commit aa4b5850, ``timm/models/mlp_mixer.py`` (Apache-2.0).

A block is one channel MLP. Between its two layers the hidden channels are split in halves, and one
half, normed and mixed over all positions by one matrix that channels share, gates the other. The
gate starts as one everywhere: the paper has its matrix begin near zero and its bias at one. The
map keeps one stride of 16 from the stem to the last block.

Shapes: N images, C channels, H x W positions of the map, P positions of the trained one.

Kept from timm: the gate's norm has an epsilon of 1e-5, all others of 1e-6 (PaddleViT's port has
1e-6 there as well: ``gate_norm_eps``).

Differences from timm: names of parameters; the blocks are tapped at four depths, each tap with a
norm of its own; images of any size, see ``grid_mode``; drop path grows with depth. Published
weights, converted by ``tools/convert_checkpoint.py``, give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_before
from mmwave.models.layers import DropPath, Linear, TokenLinear, affine_of, build_activation
from mmwave.models.layers.channel_mlp import added, linear_activated, spare
from mmwave.models.layers.lean import runner
from mmwave.models.layers.token_grid import TokenGrid
from mmwave.registry import MODELS

from .base import check_positive, drop_path_rates, init_linear, resolve_arch
from .grid import GridMode, PlainBackbone, four_stages, grid_pair, tapped_depths

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class GMLPArch:
    """Sizes of a gMLP.

    Attributes:
        depths: blocks between the taps.
        dim: C.
        mlp_ratio: hidden channels of a block, in multiples of C; half of them are gated.
        patch_size: pixels per position.
        grid: (h, w) of the trained map in positions; one number stands for a square.
    """

    depths: Sequence[int]
    dim: int
    mlp_ratio: int = 6
    patch_size: int = 16
    grid: int | tuple[int, int] = 14

    def __post_init__(self) -> None:
        object.__setattr__(self, 'depths', tapped_depths(self.depths))
        object.__setattr__(self, 'grid', grid_pair('grid', self.grid))
        check_positive(self, 'dim', 'mlp_ratio', 'patch_size')
        if self.dim * self.mlp_ratio % 2:
            raise ValueError(f'dim={self.dim} times mlp_ratio={self.mlp_ratio} must be even')


# Table 1 of the paper; gmlp_*_224 of timm.
_S = GMLPArch(depths=four_stages(30), dim=256)

ARCHS: Mapping[str, GMLPArch] = MappingProxyType(
    {
        'ti16': replace(_S, dim=128),
        's16': _S,
        'b16': replace(_S, dim=512),
    }
)


class SpatialGate(nn.Module):
    """The paper's spatial gating unit, but for the product: (M, h, w, C) -> factors of its shape.

    It takes the half that gates, in front of its activation.
    """

    def __init__(self, channels: int, positions: int, eps: float, lean: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=eps)
        self.proj = TokenLinear(positions, positions)
        self.run = runner(lean)

    def forward(self, gate: Tensor, grid: TokenGrid, act: nn.Module) -> Tensor:
        def prepare(gate: Tensor) -> Tensor:
            return grid.trained(self.norm(act(gate))).flatten(1, 2)

        def mix(tokens: Tensor) -> Tensor:
            return grid.back(self.proj(tokens).unflatten(1, grid.window))

        return self.run(mix, prepare, gate, modules=(act, self.norm))


class GMLPBlock(nn.Module):
    """A gated channel MLP behind a norm and beside a shortcut."""

    def __init__(
        self,
        arch: GMLPArch,
        *,
        drop_path: float,
        act_cfg: dict,
        gate_norm_eps: float,
        lean: bool,
        deploy: bool,
    ) -> None:
        super().__init__()
        hidden = arch.dim * arch.mlp_ratio
        self.run, self.deploy = runner(lean and not deploy), deploy
        self.norm = nn.LayerNorm(arch.dim, eps=EPS, elementwise_affine=not deploy)
        self.fc1 = Linear(arch.dim, hidden)
        self.act = build_activation(act_cfg)
        self.gate = SpatialGate(hidden // 2, arch.grid[0] * arch.grid[1], gate_norm_eps, lean)
        self.fc2 = Linear(hidden // 2, arch.dim)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.apply(init_linear)
        nn.init.normal_(self.gate.proj.weight, std=1e-6)
        nn.init.ones_(self.gate.proj.bias)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        if self.deploy:
            return self._deployed(x, grid)
        gated, gate = self.fc1(self.norm(x)).chunk(2, dim=-1)
        factors = self.gate(gate, grid, self.act)
        branch = self.run(self.fc2, torch.mul, self.act(gated), factors)
        return x + grid.dropped(branch, self.drop_path)

    def _deployed(self, x: Tensor, grid: TokenGrid) -> Tensor:
        x_normed, half = self.norm(x), self.fc2.in_features
        # Two products for two halves, each in memory of its own: the gate's norm, the activation
        # and the product of both read a half of a larger tensor much slower.
        weight, bias = self.fc1.weight, self.fc1.bias
        gate = linear_activated(x_normed, weight[half:], bias[half:], self.act)
        factors = grid.mixed(self.gate.norm(gate), self.gate.proj)
        gated = linear_activated(x_normed, weight[:half], bias[:half], self.act)
        gated = gated.mul_(factors) if spare(gated, factors) else gated * factors
        return added(self.fc2(gated), x)

    def deploy_state(self) -> dict[str, Tensor]:
        """The deploy form's tensors, computed from this train form's."""
        state = {k: v for k, v in self.state_dict().items() if not k.startswith('norm.')}
        state['fc1.weight'], state['fc1.bias'] = fuse_norm_before(
            self.fc1.weight, self.fc1.bias, *affine_of(self.norm)
        )
        return state


@MODELS.register_module()
class GMLP(PlainBackbone):
    """gMLP as four maps of one stride, taken at a quarter, half, three quarters and the end.

    Takes images (N, in_channels, H, W) of any size from 32 x 32 up and gives one map
    (N, C, ceil(H / 16), ceil(W / 16)) per entry of ``out_indices``, each through an output norm of
    its own; ``stage_info`` tells channels and strides. A feature pyramid is made by a neck:
    mmsegmentation's ``Feature2Pyramid`` of four maps, or ``mmwave.SimpleFeaturePyramid`` of the
    last. The published classifier is ``out_indices=(3,)`` with average pooling and a linear head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`GMLPArch`.
        in_channels: channels of the images.
        out_indices: stages to output, increasing; negative ones count from the last.
        grid_mode: ``'window'``, ``'resize'`` or ``'strict'``; see :class:`GridBackbone`.
        gate_norm_eps: epsilon of the norm in the gate. timm: 1e-5; PaddleViT: 1e-6.
        lean: in training, compute the gate's activation and norm and the gated product again in the
            backward pass: the same gradients, with less memory.
        deploy: build the deploy form: norms folded into the layers behind them. It is for
            inference and takes the weights that :func:`mmwave.deploy.to_deploy` makes.
        drop_path_rate: probability to drop the last block's branch in training; it grows linearly
            from 0 over the blocks.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        norm_eval: keep every batch norm in eval mode during training; gMLP has none.
        with_cp: compute activations again in the backward pass instead of storing them.
        act_cfg: activation of the channel MLPs. Published: GELU.
        init_cfg: mmengine init config; see :class:`MLPBackbone`.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, ``out_indices``, ``frozen_stages`` or
            ``drop_path_rate`` out of range, and in ``forward`` for an image too small or, with
            ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(type='GELU'), 'gate_norm_eps': 1e-5})
    kept_settings = (*PlainBackbone.kept_settings, 'grid_mode', 'gate_norm_eps')
    # Of the first block of any stage: the gate has a norm as well.
    form_marks = ('.gate.proj.weight', '.0.norm.weight')

    def __init__(
        self,
        arch: str | dict | GMLPArch = 's16',
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        grid_mode: GridMode = 'window',
        lean: bool = True,
        deploy: bool = False,
        gate_norm_eps: float = 1e-5,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        if not gate_norm_eps > 0:
            raise ValueError(f'gate_norm_eps={gate_norm_eps} must be above 0')
        act_cfg = dict(act_cfg or dict(type='GELU'))
        (rates,) = drop_path_rates(drop_path_rate, (sum(sizes.depths),))

        def block(k: int) -> GMLPBlock:
            return GMLPBlock(
                sizes,
                drop_path=rates[k],
                act_cfg=act_cfg,
                gate_norm_eps=gate_norm_eps,
                lean=lean,
                deploy=deploy,
            )

        super().__init__(
            channels=sizes.dim,
            patch_size=sizes.patch_size,
            grid=sizes.grid,
            depths=sizes.depths,
            in_channels=in_channels,
            block=block,
            norm=partial(nn.LayerNorm, sizes.dim, eps=EPS),
            grid_mode=grid_mode,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
            lean=lean,
            deploy=deploy,
        )
        self.arch = sizes
        self.act_cfg = act_cfg
        self.gate_norm_eps = gate_norm_eps

    def deploy_state(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        others = {k: v for k, v in self.state_dict().items() if not k.startswith('stages.')}
        return others | self.deployed_blocks(), (
            f'scale and shift of the norm into the first layer of each of {self.num_blocks} blocks',
        )
