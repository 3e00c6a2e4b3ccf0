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
tokens and no weight knows how many there are. Overlapping patches are gathered in three steps with
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
- the biases in front of a block's softmax (of the norm, the widening and the comparison): what all
  tokens have in common it takes no notice of.

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
from typing import Literal

import torch
import torch.nn.functional as F
from mmcv.cnn.bricks import DropPath
from torch import Tensor, nn

from mmwave.models.layers import LinearMLP
from mmwave.models.layers.windows import any_size
from mmwave.registry import MODELS

from .base import (
    MLPBackbone,
    check_positive,
    check_rate,
    drop_path_rates,
    init_linear,
    per_stage,
    resolve_arch,
)

STRIDES = (4, 8, 16, 16)
OUT_TYPES = ('map', 'cls_token')
WIDENING = 4
"""How many times the channels, and the heads, a block's attention has."""
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


def sinusoids(count: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Position codes of Vaswani et al., arXiv:1706.03762, in float32: (``count``, ``channels``).

    The angles are too large for float32 where images are: they are computed in float64.
    """
    index = torch.arange(count, dtype=torch.float64, device=device)
    pair = torch.arange(0, channels, 2, dtype=torch.float64, device=device)
    angles = index[:, None] / 10000 ** (pair / channels)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()


class ExternalAttention(nn.Module):
    """The paper's external attention over all tokens: (N, T, ..., C) -> (N, T, ..., C).

    Args:
        channels: C.
        units: M.
        bias: whether tokens are compared with the units with a bias.
        drop_rate: probability to drop a weight of a unit in training.
    """

    def __init__(self, channels: int, units: int, *, bias: bool, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.keys = nn.Linear(channels, units, bias=bias)
        self.values = nn.Linear(units, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.keys(x)
        # At least in float32: over an image's tokens half precision underflows, and loses the 1e-9.
        exact = torch.promote_types(scores.dtype, torch.float32)
        weights = scores.softmax(dim=1, dtype=exact)
        weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-9)
        return self.values(self.drop(weights.to(scores.dtype)))


class TokenMixer(nn.Module):
    """Multi-head external attention of a block: (N, T, C) -> (N, T, C)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = WIDENING * heads
        self.expand = nn.Linear(channels, WIDENING * channels)
        self.attention = ExternalAttention(channels // heads, UNITS, bias=True)
        self.proj = nn.Linear(WIDENING * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.expand(x).unflatten(2, (self.heads, -1))  # (N, T, G, 4 * C / G)
        return self.proj(self.attention(x).flatten(2))


class EABlock(nn.Module):
    """External attention and an MLP, each behind a norm and beside a shortcut: (N, T, C)."""

    def __init__(self, arch: EAMLPArch, drop_path: float, act_cfg: dict) -> None:
        super().__init__()
        dim = arch.dim
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = TokenMixer(dim, arch.heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = LinearMLP(dim, arch.mlp_ratio * dim, dim, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class TokenAttention(nn.Module):
    """What the release's token performer does to its narrowed patches: (N, H, W, C) -> the same."""

    def __init__(self, channels: int, drop_rate: float, act_cfg: dict) -> None:
        super().__init__()
        self.attention = ExternalAttention(channels, 2 * channels, bias=False, drop_rate=drop_rate)
        self.proj = nn.Linear(channels, channels)
        self.drop = nn.Dropout(drop_rate)
        self.norm = nn.LayerNorm(channels)
        self.mlp = LinearMLP(channels, channels, channels, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.proj(self.attention(x.flatten(1, 2)))).view_as(x)
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
        self.proj = nn.Linear(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, 0, *(self.padding,) * 4))
        for axis in (1, 2):
            x = x.unfold(axis, self.kernel_size, self.stride)  # (N, H', W', C, k, k)
        return self.proj(self.norm(x.flatten(3)))


class Tokens(SoftSplit):
    """The last soft split, and what makes tokens of its map: the class token and the positions."""

    def __init__(self, in_channels: int, channels: int, **split: int) -> None:
        super().__init__(in_channels, channels, norm=False, **split)
        self.cls_token = nn.Parameter(torch.empty(1, 1, channels))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self._table: Tensor | None = None

    def tokens(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, 1 + H * W, C), the class token first."""
        first = self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1)
        x = torch.cat([first, x.flatten(1, 2)], dim=1)
        return x + self._positions(x).to(x.dtype)

    def _positions(self, x: Tensor) -> Tensor:
        """The table for tokens (N, T, C): kept from one image to the next of the same size."""
        if any_size() or torch.compiler.is_compiling():
            return sinusoids(x.shape[1], x.shape[2], x.device)
        table = self._table
        if table is None or table.shape != x.shape[1:] or table.device != x.device:
            table = self._table = sinusoids(x.shape[1], x.shape[2], x.device)
        return table


@MODELS.register_module()
class EAMLP(MLPBackbone):
    """EAMLP with taps at strides 4, 8, 16 and 16.

    Takes images (N, in_channels, H, W) of any size from 32 x 32 up and gives one map per entry of
    ``out_indices``, each through an output norm of its own; ``stage_info`` tells channels and
    strides. Stages 0 and 1 are the token attentions, stages 2 and 3 the first and the second half
    of the blocks. A map of stride 4 has (side - 3) // 4 + 1 positions a side, the next ones half of
    those before, rounded up. The published classifier is ``out_indices=(3,)`` with
    ``out_type='cls_token'`` and a linear head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`EAMLPArch`.
        in_channels: channels of the images.
        out_indices: stages to output, increasing; negative ones count from the last.
        out_type: ``'map'`` gives maps (N, C, H, W) of the image's tokens, ``'cls_token'`` the class
            token of the last stage, (N, dim), for which ``out_indices`` must be (3,).
        drop_path_rate: probability to drop the last block's branches in training; it grows linearly
            from 0 over the blocks of stages 2 and 3. The token attentions are never dropped.
        token_drop_rate: probability to drop, in training, weights and outputs of the token
            attentions. Published: 0.1.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        norm_eval: accepted as by every backbone; there are no batch norms.
        with_cp: compute activations again in the backward pass instead of storing them.
        act_cfg: activation of the MLPs. Published: GELU.
        init_cfg: mmengine init config; see :class:`MLPBackbone`.

    Raises:
        ValueError: for an unknown arch or ``out_type``, ``out_indices``, ``frozen_stages``,
            ``drop_path_rate`` or ``token_drop_rate`` out of range, and in ``forward`` for an image
            smaller than 32 x 32.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(type='GELU')})

    def __init__(
        self,
        arch: str | dict | EAMLPArch = '14',
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        out_type: Literal['map', 'cls_token'] = 'map',
        drop_path_rate: float = 0.0,
        token_drop_rate: float = 0.1,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        channels = (sizes.token_dim, sizes.token_dim, sizes.dim, sizes.dim)
        super().__init__(
            channels=channels,
            strides=STRIDES,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
        )
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
        self.arch = sizes
        self.in_channels = in_channels
        self.out_type = out_type
        self.act_cfg = dict(act_cfg or dict(type='GELU'))

        token, stages = sizes.token_dim, range(self.num_stages)
        self.stem = SoftSplit(in_channels, token, kernel_size=7, stride=4, padding=2)
        halving = dict(kernel_size=3, stride=2, padding=1)
        joints = (SoftSplit(token, token, **halving), Tokens(token, sizes.dim, **halving))
        self.downsamples = nn.ModuleList([*joints, nn.Identity()][: len(stages) - 1])
        rates = drop_path_rates(drop_path_rate, sizes.depths[2:])
        self.stages = nn.ModuleList(
            nn.Sequential(*(EABlock(sizes, rate, self.act_cfg) for rate in rates[i - 2]))
            if i > 1
            else nn.Sequential(TokenAttention(token, token_drop_rate, self.act_cfg))
            for i in stages
        )
        self.out_norms = nn.ModuleDict(
            {str(i): nn.LayerNorm(channels[i]) for i in self.out_indices}
        )
        self._draw()
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the levels that ``stage_info`` describes."""
        self.check_input(x)
        outputs = []
        x = self.stem(x.permute(0, 2, 3, 1))
        for i in range(self.num_stages):
            if i:
                x = self.downsamples[i - 1](x)
            if i < 3:
                grid = x.shape[1:3]
            if i == 2:
                x = self.downsamples[1].tokens(x)
            x = self.run_blocks(i, x)
            if i in self.out_indices:
                outputs.append(self._output(i, x, grid))
        return tuple(outputs)

    def _output(self, stage: int, x: Tensor, grid: Sequence[int]) -> Tensor:
        """The level of a stage's map, or of its tokens, which lie on ``grid``."""
        alone = self.out_type == 'cls_token'
        if stage > 1:
            x = x[:, 0] if alone else x[:, 1:].unflatten(1, grid)
        x = self.out_norms[str(stage)](x)
        return x if alone else x.permute(0, 3, 1, 2)

    def _draw(self) -> None:
        """Draw weights as T2T-ViT does; memories of token attentions compare with what they sum."""
        self.apply(init_linear)
        for stage in self.stages[:2]:
            attention = stage[0].attention
            with torch.no_grad():
                attention.values.weight.copy_(attention.keys.weight.T)
