"""ResMLP.

Paper: Touvron, Bojanowski, Caron, Cord, El-Nouby, Grave, Izacard, Joulin, Synnaeve, Verbeek, Jegou:
ResMLP: Feedforward networks for image classification with data-efficient training,
arXiv:2105.03404.
Published code: facebookresearch/deit at commit 7e160fe, ``resmlp_models.py`` (Apache-2.0).

A block mixes positions by one linear layer that channels share, then channels by an MLP. There are
no statistics anywhere: scales and shifts that are learned stand in for norms, and a learned factor
per channel, small at first, weighs each branch. The map keeps one stride of 16 (``b24``: 8) from
the stem to the last block.

Shapes: N images, C channels, H x W positions of the map, P positions of the trained one.

Kept from the release: drop path is the same at every depth; the branches' first weights depend on
the variant.

Differences from the published release: names of parameters; there are outputs at four depths, each
with an affine layer of its own; images of any size, see ``grid_mode``. Published weights, converted
by ``tools/convert_checkpoint.py``, give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Unpack

import torch
from torch import Tensor, nn

from mmwave.models.layers import Affine, DropPath, LinearMLP, TokenLinear
from mmwave.models.layers.token_grid import TokenGrid
from mmwave.registry import MODELS

from .arch import check_positive, resolve_arch
from .base import BackboneSettings, init_linear
from .grid import GridMode, PlainBackbone, four_stages, grid_pair, output_depths


@dataclass(frozen=True, kw_only=True)
class ResMLPArch:
    """Sizes of a ResMLP.

    Attributes:
        depths: blocks between the outputs.
        dim: C.
        mlp_ratio: hidden channels of the channel MLPs, in multiples of C.
        patch_size: pixels per position.
        grid: (h, w) of the trained map in positions; one number stands for a square.
        scale_init: weight of every branch before training; no part of what is trained, so archs
            that differ in it alone are equal.
    """

    depths: Sequence[int]
    dim: int
    mlp_ratio: int = 4
    patch_size: int = 16
    grid: int | tuple[int, int] = 14
    scale_init: float = field(default=1e-5, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'depths', output_depths(self.depths))
        object.__setattr__(self, 'grid', grid_pair('grid', self.grid))
        check_positive(self, 'dim', 'mlp_ratio', 'patch_size')


# The model functions of the release's resmlp_models.py.
_S = ResMLPArch(depths=four_stages(12), dim=384, scale_init=0.1)

ARCHS: Mapping[str, ResMLPArch] = MappingProxyType(
    {
        's12': _S,  # resmlp_12
        's24': replace(_S, depths=four_stages(24), scale_init=1e-5),  # resmlp_24
        's36': replace(_S, depths=four_stages(36), scale_init=1e-6),  # resmlp_36
        'b24': replace(  # resmlpB_24
            _S, depths=four_stages(24), dim=768, patch_size=8, grid=28, scale_init=1e-6
        ),
    }
)


class ResMLPBlock(nn.Module):
    """Token mixing and channel mixing, each behind an affine layer, scaled, beside a shortcut."""

    def __init__(self, arch: ResMLPArch, *, drop_path: float, act_cfg: dict) -> None:
        super().__init__()
        dim, positions = arch.dim, arch.grid[0] * arch.grid[1]
        self.norm1 = Affine(dim, channels_last=True)
        self.tokens = TokenLinear(positions, positions)
        self.scale1 = nn.Parameter(torch.full((dim,), arch.scale_init))
        self.norm2 = Affine(dim, channels_last=True)
        self.mlp = LinearMLP(dim, arch.mlp_ratio * dim, dim, act_cfg)
        self.scale2 = nn.Parameter(torch.full((dim,), arch.scale_init))
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.apply(init_linear)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        mixed = grid.mixed(self.norm1(x), self.tokens)
        x = x + grid.dropped(self.scale1 * mixed, self.drop_path)
        return x + grid.dropped(self.scale2 * self.mlp(self.norm2(x)), self.drop_path)


@MODELS.register_module()
class ResMLP(PlainBackbone):
    """ResMLP as four maps of one stride, taken at a quarter, half, three quarters and the end.

    It accepts images (N, in_channels, H, W) of any size from 32 x 32 up and returns one map
    (N, C, ceil(H / s), ceil(W / s)) per entry of ``out_indices``, s being 16 or, for ``b24``, 8,
    each through an affine layer of its own; ``stage_info`` has channels and strides. A neck makes a
    feature pyramid: mmsegmentation's ``Feature2Pyramid`` of four maps, or
    ``mmwave.SimpleFeaturePyramid`` of the last. The published classifier is ``out_indices=(3,)``
    with average pooling and a linear head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`ResMLPArch`.
        grid_mode: ``'window'``, ``'resize'`` or ``'strict'``; see :class:`GridBackbone`.
        **settings: see :class:`BackboneSettings`; ``drop_path_rate`` is that of all blocks.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, a setting out of range, and in ``forward``
            for an image too small or, with ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS

    def __init__(
        self,
        arch: str | dict | ResMLPArch = 's12',
        *,
        grid_mode: GridMode = 'window',
        **settings: Unpack[BackboneSettings],
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        super().__init__(sizes, grid_mode=grid_mode, **settings)
        self.build(
            block=lambda rate: ResMLPBlock(sizes, drop_path=rate, act_cfg=self.act_cfg),
            norm=partial(Affine, sizes.dim, channels_last=True),
            same_rate=True,
        )
