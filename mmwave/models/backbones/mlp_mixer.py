"""MLP-Mixer.

Paper: Tolstikhin, Houlsby, Kolesnikov, Beyer, Zhai, Unterthiner, Yung, Steiner, Keysers, Uszkoreit,
Lucic, Dosovitskiy: MLP-Mixer: An all-MLP Architecture for Vision, NeurIPS 2021, arXiv:2105.01601.
Published code: google-research/vision_transformer at commit c6de1e5, ``vit_jax/models_mixer.py``
(Apache-2.0).

A block mixes positions by an MLP that channels share, then channels by an MLP that positions share,
each behind a norm. The map keeps one stride of 16 from the stem to the last block.

Shapes: N images, C channels, H x W positions of the map, P positions of the trained one, D_S and
D_C hidden sizes of the token and the channel MLPs.

Kept from the release: norms have an epsilon of 1e-6 (mmpretrain's port has 1e-5: ``norm_eps``);
layers start as flax's do. Its GELU is the tanh approximation, while the ports to PyTorch use the
exact one: converted files say which.

Differences from the published release: names of parameters; there are outputs at four depths, each
with a norm of its own; images of any size, see ``grid_mode``; drop path. Published
weights, converted by ``tools/convert_checkpoint.py``, give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Unpack

from torch import Tensor, nn

from mmwave.models.layers import DropPath, LinearMLP, TokenLinear
from mmwave.models.layers.token_grid import TokenGrid
from mmwave.registry import MODELS

from .arch import check_positive, resolve_arch
from .base import GELU, BackboneSettings
from .grid import GridMode, PlainBackbone, four_stages, grid_pair, output_depths


@dataclass(frozen=True, kw_only=True)
class MLPMixerArch:
    """Sizes of an MLP-Mixer.

    Attributes:
        depths: blocks between the outputs.
        dim: C.
        token_mlp_dim: D_S.
        channel_mlp_dim: D_C.
        patch_size: pixels per position.
        grid: (h, w) of the trained map in positions; one number stands for a square.
    """

    depths: Sequence[int]
    dim: int
    token_mlp_dim: int
    channel_mlp_dim: int
    patch_size: int = 16
    grid: int | tuple[int, int] = 14

    def __post_init__(self) -> None:
        object.__setattr__(self, 'depths', output_depths(self.depths))
        object.__setattr__(self, 'grid', grid_pair('grid', self.grid))
        check_positive(self, 'dim', 'token_mlp_dim', 'channel_mlp_dim', 'patch_size')


# Table 1 of the paper.
_S = MLPMixerArch(depths=four_stages(8), dim=512, token_mlp_dim=256, channel_mlp_dim=2048)

ARCHS: Mapping[str, MLPMixerArch] = MappingProxyType(
    {
        's16': _S,
        'b16': MLPMixerArch(
            depths=four_stages(12), dim=768, token_mlp_dim=384, channel_mlp_dim=3072
        ),
        'l16': replace(
            _S, depths=four_stages(24), dim=1024, token_mlp_dim=512, channel_mlp_dim=4096
        ),
    }
)


class TokenMLP(LinearMLP):
    """Mix positions of every channel alike: (M, P, C) -> (M, P, C)."""

    layer = TokenLinear


class MixerBlock(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(
        self, arch: MLPMixerArch, *, drop_path: float, act_cfg: dict, norm_eps: float
    ) -> None:
        super().__init__()
        dim, positions = arch.dim, arch.grid[0] * arch.grid[1]
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.token_mlp = TokenMLP(positions, arch.token_mlp_dim, positions, act_cfg)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.channel_mlp = LinearMLP(dim, arch.channel_mlp_dim, dim, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.apply(_init)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        x = x + grid.dropped(grid.mixed(self.norm1(x), self.token_mlp), self.drop_path)
        return x + grid.dropped(self.channel_mlp(self.norm2(x)), self.drop_path)


def _init(module: nn.Module) -> None:
    """Initialise as flax does a dense layer: variance 1 / inputs, no bias."""
    if isinstance(module, nn.Linear):
        # A normal cut off at two deviations has 0.88 of its deviation left.
        std = module.in_features**-0.5 / 0.87962566
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(module.bias)


@MODELS.register_module()
class MLPMixer(PlainBackbone):
    """MLP-Mixer as four maps of one stride, taken at a quarter, half, three quarters and the end.

    It accepts images (N, in_channels, H, W) of any size from 32 x 32 up and returns one map
    (N, C, ceil(H / 16), ceil(W / 16)) per entry of ``out_indices``, each through an output norm of
    its own; ``stage_info`` has channels and strides. A neck makes a feature pyramid:
    mmsegmentation's ``Feature2Pyramid`` of four maps, or ``mmwave.SimpleFeaturePyramid`` of the
    last. The published classifier is ``out_indices=(3,)`` with average pooling and a linear head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`MLPMixerArch`.
        grid_mode: ``'window'``, ``'resize'`` or ``'strict'``; see :class:`GridBackbone`.
        norm_eps: epsilon of every norm. timm, Google, PaddleViT: 1e-6; mmpretrain: 1e-5.
        **settings: see :class:`BackboneSettings`.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, a setting out of range, a ``norm_eps``
            that is not positive, and in ``forward`` for an image too small or, with ``'strict'``,
            of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(GELU), 'norm_eps': 1e-6})

    def __init__(
        self,
        arch: str | dict | MLPMixerArch = 'b16',
        *,
        grid_mode: GridMode = 'window',
        norm_eps: float = 1e-6,
        **settings: Unpack[BackboneSettings],
    ) -> None:
        if not norm_eps > 0:
            raise ValueError(f'norm_eps={norm_eps} must be positive')
        sizes = resolve_arch(arch, ARCHS)
        super().__init__(sizes, grid_mode=grid_mode, **settings)
        self.norm_eps = norm_eps
        self.build(
            block=lambda rate: MixerBlock(
                sizes, drop_path=rate, act_cfg=self.act_cfg, norm_eps=norm_eps
            ),
            norm=partial(nn.LayerNorm, sizes.dim, eps=norm_eps),
        )
