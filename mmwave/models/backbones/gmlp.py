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

Differences from timm: names of parameters; there are outputs at four depths, each with a norm of
its own; images of any size, see ``grid_mode``; drop path grows with depth. Published weights,
converted by ``tools/convert_checkpoint.py``, give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Unpack

from torch import Tensor, nn

from mmwave.models.layers import DropPath, Linear, TokenLinear, build_activation
from mmwave.models.layers.token_grid import TokenGrid
from mmwave.registry import MODELS

from .arch import check_positive, resolve_arch
from .base import GELU, BackboneSettings, init_linear
from .grid import GridMode, PlainBackbone, four_stages, grid_pair, output_depths

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class GMLPArch:
    """Sizes of a gMLP.

    Attributes:
        depths: blocks between the outputs.
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
        object.__setattr__(self, 'depths', output_depths(self.depths))
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
    """The paper's spatial gating unit, of both halves: (M, h, w, C) twice -> (M, h, w, C)."""

    def __init__(self, channels: int, positions: int, eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels, eps=eps)
        self.proj = TokenLinear(positions, positions)

    def forward(self, x: Tensor, gate: Tensor, grid: TokenGrid) -> Tensor:
        return x * grid.mixed(self.norm(gate), self.proj)


class GMLPBlock(nn.Module):
    """A gated channel MLP behind a norm and beside a shortcut."""

    def __init__(
        self, arch: GMLPArch, *, drop_path: float, act_cfg: dict, gate_norm_eps: float
    ) -> None:
        super().__init__()
        hidden = arch.dim * arch.mlp_ratio
        self.norm = nn.LayerNorm(arch.dim, eps=EPS)
        self.fc1 = Linear(arch.dim, hidden)
        self.act = build_activation(act_cfg)
        self.gate = SpatialGate(hidden // 2, arch.grid[0] * arch.grid[1], gate_norm_eps)
        self.fc2 = Linear(hidden // 2, arch.dim)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.apply(init_linear)
        nn.init.normal_(self.gate.proj.weight, std=1e-6)
        nn.init.ones_(self.gate.proj.bias)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        x_half, gate_half = self.fc1(self.norm(x)).chunk(2, dim=-1)
        # By halves, which are then contiguous. Of both at once, oneDNN's GELU rounds differently.
        gated = self.gate(self.act(x_half), self.act(gate_half), grid)
        return x + grid.dropped(self.fc2(gated), self.drop_path)


@MODELS.register_module()
class GMLP(PlainBackbone):
    """gMLP as four maps of one stride, taken at a quarter, half, three quarters and the end.

    It accepts images (N, in_channels, H, W) of any size from 32 x 32 up and returns one map
    (N, C, ceil(H / 16), ceil(W / 16)) per entry of ``out_indices``, each through an output norm of
    its own; ``stage_info`` has channels and strides. A neck makes a feature pyramid:
    mmsegmentation's ``Feature2Pyramid`` of four maps, or ``mmwave.SimpleFeaturePyramid`` of the
    last. The published classifier is ``out_indices=(3,)`` with average pooling and a linear head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`GMLPArch`.
        grid_mode: ``'window'``, ``'resize'`` or ``'strict'``; see :class:`GridBackbone`.
        gate_norm_eps: epsilon of the norm in the gate. timm: 1e-5; PaddleViT: 1e-6.
        **settings: see :class:`BackboneSettings`.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, a setting out of range, a
            ``gate_norm_eps`` that is not positive, and in ``forward`` for an image too small or,
            with ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(GELU), 'gate_norm_eps': 1e-5})

    def __init__(
        self,
        arch: str | dict | GMLPArch = 's16',
        *,
        grid_mode: GridMode = 'window',
        gate_norm_eps: float = 1e-5,
        **settings: Unpack[BackboneSettings],
    ) -> None:
        if not gate_norm_eps > 0:
            raise ValueError(f'gate_norm_eps={gate_norm_eps} must be above 0')
        sizes = resolve_arch(arch, ARCHS)
        super().__init__(sizes, grid_mode=grid_mode, **settings)
        self.gate_norm_eps = gate_norm_eps
        self.build(
            block=lambda rate: GMLPBlock(
                sizes, drop_path=rate, act_cfg=self.act_cfg, gate_norm_eps=gate_norm_eps
            ),
            norm=partial(nn.LayerNorm, sizes.dim, eps=EPS),
        )
