"""EAMLP, the all-MLP network of external attention.

Paper: Guo, Liu, Mu, Hu: Beyond Self-attention: External Attention using Two Linear Layers for
Visual Tasks, arXiv:2105.02358. The frame around it, soft splits and tokens-to-token, is of T2T-ViT:
Yuan, Chen, Wang, Yu, Shi, Jiang, Tay, Feng, Yan, ICCV 2021, arXiv:2101.11986.
Published code: MenghaoGuo/EANet at commit 59c03cb, ``EAMLP/models/{t2t_vit,token_performer,
transformer_block}.py``.

Tokens attend to a small memory that is learnt, the same for all images, instead of to each other:
one linear layer compares every token with the memory's units, another sums the units' values. What
ties tokens together is the normalisation between the two: a softmax over all tokens of the image
for every unit, then a division by the sum over the units for every token. The cost is linear in the
tokens and no weight depends on their number. Overlapping patches are gathered in three steps with
strides 4, 8 and 16, external attention after the first two; a class token and sinusoid positions
are added, and the blocks follow.

Shapes: N images, H x W positions of the map, T tokens (H * W, with the class token one more), C
channels, G heads, M memory units.

Kept from the release, since its weights were trained so:
- the softmax runs over the class token as well, in dense use too: maps are those that the
  classifier computes;
- positions are numbered through, row by row, whatever the width of the map;
- blocks widen the tokens to four times their channels, and have four times ``heads`` heads, which
  share one memory;
- token attentions keep no shortcut around the layer that narrows their patches;
- the biases in front of a block's softmax (of the norm, the widening and the comparison), although
  the softmax over the tokens cancels what all of them have in common.

Differences from the published release: names of parameters; dense outputs, each with an output
norm; images of any size and side ratio: the position table is computed for the image at hand, where
the release holds one of the trained size; the two layers of a token attention's memory, which start
as each other's transpose, are two parameters from the start, where the release lets them share
their storage until it is moved. Published weights, converted by ``tools/convert_checkpoint.py``,
give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from mmwave.models.layers import DropPath, Linear, LinearMLP
from mmwave.ops import patches
from mmwave.ops.sinusoids import sinusoids
from mmwave.ops.windows import counts
from mmwave.registry import MODELS

from .arch import check_positive, check_rate, per_stage, resolve_arch
from .base import BackboneSettings, MLPBackbone, drop_path_rates, init_linear

STRIDES = (4, 8, 16, 16)
OUT_TYPES = ('map', 'cls_token')
WIDENING = 4
"""Channels of a block's attention, in multiples of the block's; its heads likewise."""
UNITS = 64
"""Memory units of a block's attention."""


@dataclass(frozen=True, kw_only=True)
class EAMLPArch:
    """Sizes of an EAMLP.

    Attributes:
        depths: 1 and 1, the token attentions, then blocks of the two stages that share stride 16.
        dim: channels of the blocks, even.
        heads: a quarter of the heads of a block's attention; divides ``dim``.
        mlp_ratio: hidden channels of the blocks' MLPs, in multiples of their channels.
        token_dim: channels of the token attentions.
    """

    depths: Sequence[int]
    dim: int
    heads: int
    mlp_ratio: int
    token_dim: int = 64

    def __post_init__(self) -> None:
        object.__setattr__(self, 'depths', per_stage('depths', self.depths, len(STRIDES)))
        if self.depths[:2] != (1, 1):
            raise ValueError(
                f'depths={self.depths} must begin with 1, 1: stages 0 and 1 are one token attention'
            )
        check_positive(self, 'dim', 'heads', 'mlp_ratio', 'token_dim')
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f'dim={self.dim} must be even and a multiple of heads={self.heads}')


# The model functions T2t_vit_7, _14, _19 and _24 of the release's t2t_vit.py.
ARCHS: Mapping[str, EAMLPArch] = MappingProxyType(
    {
        '7': EAMLPArch(depths=(1, 1, 3, 4), dim=256, heads=4, mlp_ratio=2),
        '14': EAMLPArch(depths=(1, 1, 7, 7), dim=384, heads=6, mlp_ratio=3),
        '19': EAMLPArch(depths=(1, 1, 9, 10), dim=448, heads=7, mlp_ratio=3),
        '24': EAMLPArch(depths=(1, 1, 12, 12), dim=512, heads=8, mlp_ratio=3),
    }
)


def double_norm(scores: Tensor) -> Tensor:
    """Return the paper's double normalisation of scores (N, T, ..., M): over T, then over M."""
    # At least in float32: over an image's tokens half precision underflows, and loses the 1e-9.
    exact = torch.promote_types(scores.dtype, torch.float32)
    attention = scores.softmax(dim=1, dtype=exact)
    attention = attention / (attention.sum(dim=-1, keepdim=True) + 1e-9)
    return attention.to(scores.dtype)


class ExternalAttention(nn.Module):
    """The paper's external attention over all tokens: (N, T, ..., C) -> (N, T, ..., C).

    Args:
        channels: C.
        units: M.
        bias: whether tokens are compared with the units with a bias.
        drop_rate: probability to drop a unit's weight in training.
    """

    def __init__(self, channels: int, units: int, *, bias: bool, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.keys = Linear(channels, units, bias=bias)
        self.values = Linear(units, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        attention = double_norm(self.keys(x))
        return self.values(self.drop(attention))


class MultiHeadAttention(nn.Module):
    """External attention with heads that share one memory: (N, T, C) -> (N, T, C)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = WIDENING * heads
        self.expand = Linear(channels, WIDENING * channels)
        self.attention = ExternalAttention(channels // heads, UNITS, bias=True)
        self.proj = Linear(WIDENING * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(x).unflatten(2, (self.heads, -1))  # (N, T, G, 4 * C / G)
        return self.proj(self.attention(x).flatten(2))


class EABlock(nn.Module):
    """External attention and an MLP, each behind a norm and beside a shortcut: (N, T, C)."""

    def __init__(self, arch: EAMLPArch, drop_path: float, act_cfg: dict) -> None:
        super().__init__()
        dim = arch.dim
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = MultiHeadAttention(dim, arch.heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = LinearMLP(dim, arch.mlp_ratio * dim, dim, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class TokenAttention(nn.Module):
    """The release's token performer, on patches narrowed before: (N, H, W, C) -> (N, H, W, C)."""

    def __init__(self, channels: int, drop_rate: float, act_cfg: dict) -> None:
        super().__init__()
        self.attention = ExternalAttention(channels, 2 * channels, bias=False, drop_rate=drop_rate)
        self.proj = Linear(channels, channels)
        self.drop = nn.Dropout(drop_rate)
        self.norm = nn.LayerNorm(channels)
        self.mlp = LinearMLP(channels, channels, channels, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention(x.flatten(1, 2)).view_as(x)
        x = x + self.drop(self.proj(attended))
        return x + self.mlp(self.norm(x))


class SoftSplit(nn.Module):
    """Gather overlapping patches and narrow them: (N, H, W, C) -> (N, H', W', C').

    Args:
        in_channels: C.
        channels: C'.
        kernel_size: side of a patch, in positions.
        stride: positions from one patch to the next.
        padding: zeros around the map.
        norm: whether patches are normed before.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        kernel_size: int,
        stride: int,
        padding: int,
        norm: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        width = in_channels * kernel_size * kernel_size
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.proj = Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = patches(x, self.kernel_size, self.stride, self.padding)
        return self.proj(self.norm(x))


class Tokens(SoftSplit):
    """The last soft split, a class token in front of its map's tokens, and the positions."""

    def __init__(self, in_channels: int, channels: int, **split: int) -> None:
        super().__init__(in_channels, channels, norm=False, **split)
        self.cls_token = nn.Parameter(torch.empty(1, 1, channels))
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, 1 + H' * W', C'), the class token first."""
        x = super().forward(x).flatten(1, 2)
        first = self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1)
        x = torch.cat([first, x], dim=1)
        return x + sinusoids(x.shape[1], x.shape[2], x.device).to(x.dtype)


@MODELS.register_module()
class EAMLP(MLPBackbone):
    """EAMLP with outputs at strides 4, 8, 16 and 16.

    It accepts images (N, in_channels, H, W) of any size from 32 x 32 up and returns one map per
    entry of ``out_indices``, each through an output norm of its own; ``stage_info`` has channels
    and strides. Stages 0 and 1 are the token attentions, stages 2 and 3 the first and the second
    half of the blocks. A map of stride 4 has (side - 3) // 4 + 1 positions a side, the next ones
    half of those before, rounded up. ``drop_path_rate`` grows over the blocks of stages 2 and 3;
    token attentions are never dropped. The published classifier is ``out_indices=(3,)`` with
    ``out_type='cls_token'`` and a linear head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`EAMLPArch`.
        out_type: ``'map'`` returns maps (N, C, H, W) of the image's tokens, ``'cls_token'`` the
            class token of the last stage, (N, dim), for which ``out_indices`` must be (3,).
        token_drop_rate: probability to drop, in training, weights and outputs of the token
            attentions. Published: 0.1.
        **settings: see :class:`BackboneSettings`.

    Raises:
        ValueError: for an unknown arch or ``out_type``, a setting out of range, and in ``forward``
            for an image smaller than 32 x 32.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS

    def __init__(
        self,
        arch: str | dict | EAMLPArch = '14',
        *,
        out_type: Literal['map', 'cls_token'] = 'map',
        token_drop_rate: float = 0.1,
        **settings: Unpack[BackboneSettings],
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        token, dim = sizes.token_dim, sizes.dim
        channels = (token, token, dim, dim)
        super().__init__(sizes, channels=channels, strides=STRIDES, **settings)
        if out_type not in OUT_TYPES:
            raise ValueError(
                f'unknown out_type {out_type!r}: expected one of {", ".join(OUT_TYPES)}'
            )
        if out_type == 'cls_token' and self.out_indices != (3,):
            raise ValueError(
                f"out_type='cls_token' needs out_indices=(3,), not {self.out_indices}: "
                f'the class token is read behind the last block'
            )
        check_rate('token_drop_rate', token_drop_rate)
        self.out_type = out_type

        halving = dict(kernel_size=3, stride=2, padding=1)
        rates = drop_path_rates(self.drop_path_rate, sizes.depths[2:])

        def blocks(i: int) -> list[nn.Module]:
            if i < 2:
                return [TokenAttention(token, token_drop_rate, self.act_cfg)]
            return [EABlock(sizes, rate, self.act_cfg) for rate in rates[i - 2]]

        self.stem = SoftSplit(self.in_channels, token, kernel_size=7, stride=4, padding=2)
        downsamples = SoftSplit(token, token, **halving), Tokens(token, dim, **halving)
        self.downsamples = nn.ModuleList([*downsamples, nn.Identity()][: self.num_stages - 1])
        self.stages = nn.ModuleList(nn.Sequential(*blocks(i)) for i in range(self.num_stages))
        self.out_norms = nn.ModuleDict(
            {str(i): nn.LayerNorm(channels[i]) for i in self.out_indices}
        )
        self._draw()
        self.finish()

    def _draw(self) -> None:
        """Draw weights as T2T-ViT does; memories of token attentions compare with what they sum."""
        self.apply(init_linear)
        for stage in self.stages[:2]:
            attention = stage[0].attention
            with torch.no_grad():
                attention.values.weight.copy_(attention.keys.weight.T)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the levels that ``stage_info`` describes."""
        self.check_input(x)
        outputs = []
        x = self.run_part(self.stem, x.permute(0, 2, 3, 1))
        grid = x.shape[1], x.shape[2]
        for i in range(self.num_stages):
            if i:
                step = STRIDES[i] // STRIDES[i - 1]
                grid = counts(grid, (step, step))
                x = self.run_part(self.downsamples[i - 1], x)
            x = self.run_blocks(i, x)
            if i in self.out_indices:
                outputs.append(self._output(i, x, grid))
        return tuple(outputs)

    def _output(self, stage: int, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """The level of a stage's map (N, H, W, C), or of its tokens (N, 1 + H * W, C)."""
        norm = self.out_norms[str(stage)]
        if self.out_type == 'cls_token':
            return norm(x[:, 0])
        if x.dim() == 3:
            x = x[:, 1:].unflatten(1, grid)
        return norm(x).permute(0, 3, 1, 2)
