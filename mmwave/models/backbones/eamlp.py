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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_before
from mmwave.models.layers import DropPath, Linear, LinearMLP, affine_of
from mmwave.models.layers.channel_mlp import added, mlp_added, spare
from mmwave.models.layers.lean import keep, runner
from mmwave.ops import linear, patches
from mmwave.ops.graphs import any_size
from mmwave.ops.windows import counts
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
TABLE = 1 + 24 * 24
"""Tokens that a deploy form holds positions for: as many as in images of 384 x 384, the largest
that weights were published for. Smaller images have the first of them."""
ROWS = 2048
"""Tokens that a deploy form's attention takes at a time on the CPU, in whole images."""


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
        self.keys = Linear(channels, units, bias=bias)
        self.values = Linear(units, channels)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, run: Callable[..., Any] = keep) -> Tensor:
        """``run`` is how it is run, see :func:`mmwave.models.layers.lean.runner`."""
        scores = self.keys(x)
        if not (self.drop.training and self.drop.p):
            return run(self.values, shares, scores)
        # Drawn here: what is computed again must not draw.
        kept = self.drop(torch.ones_like(scores))
        return run(self.values, lambda scores, kept: shares(scores) * kept, scores, kept)


def shares(scores: Tensor) -> Tensor:
    """What a token takes of each unit, of scores (N, T, ..., M)."""
    # At least in float32: over an image's tokens half precision underflows, and loses the 1e-9.
    exact = torch.promote_types(scores.dtype, torch.float32)
    weights = scores.softmax(dim=1, dtype=exact)
    weights = weights / (weights.sum(dim=-1, keepdim=True) + 1e-9)
    return weights.to(scores.dtype)


class TokenMixer(nn.Module):
    """Multi-head external attention of a block: (N, T, C) -> (N, T, C)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = WIDENING * heads
        self.expand = Linear(channels, WIDENING * channels)
        self.attention = ExternalAttention(channels // heads, UNITS, bias=True)
        self.proj = Linear(WIDENING * channels, channels)

    def forward(
        self, x: Tensor, norm: nn.Module | None = None, run: Callable[..., Any] = keep
    ) -> Tensor:
        """Mix ``norm(x)``; ``run`` is how, see :func:`mmwave.models.layers.lean.runner`."""
        x = run(self.expand, norm, x).unflatten(2, (self.heads, -1))  # (N, T, G, 4 * C / G)
        return self.proj(self.attention(x, run).flatten(2))

    def deploy_state(self, scale: Tensor) -> dict[str, Tensor]:
        """The tensors of :class:`FusedAttention` behind a norm of which only ``scale`` matters."""
        attention = self.attention
        widened = self.expand.weight.unflatten(0, (self.heads, -1))
        keys = torch.einsum('md,gdc->gmc', attention.keys.weight, widened).flatten(0, 1)
        gathered = self.proj.weight.unflatten(1, (self.heads, -1))
        values = torch.einsum('cgd,dm->cgm', gathered, attention.values.weight).flatten(1)
        bias = self.proj.bias + gathered.sum(dim=1) @ attention.values.bias
        return {'keys.weight': keys * scale, 'values.weight': values, 'values.bias': bias}


class FusedAttention(nn.Module):
    """External attention in deploy form, with what is linear around it: (N, T, C) -> (N, T, C).

    The scores of all heads are one product of the tokens, without the biases that the softmax takes
    no notice of; what follows the values is merged with them. Scores are held transposed, so that
    the softmax runs along the memory.

    Args:
        channels: C.
        heads: G.
        units: M.
    """

    def __init__(self, channels: int, heads: int, units: int) -> None:
        super().__init__()
        self.heads = heads
        self.keys = Linear(channels, heads * units, bias=False)
        self.values = Linear(heads * units, channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != 'cpu' or not spare(x) or x.shape[0] * x.shape[1] <= ROWS:
            return self._mixed(x)
        step = max(ROWS // x.shape[1], 1)
        return torch.cat([self._mixed(part) for part in x.split(step)])

    def _mixed(self, x: Tensor) -> Tensor:
        scores = linear(self.keys.weight, x.flatten(0, 1))  # (G * M, N * T)
        exact = torch.promote_types(scores.dtype, torch.float32)
        units = len(scores) // self.heads  # not -1, which an empty batch leaves open
        weights = scores.view(self.heads, units, *x.shape[:2]).to(exact)
        weights = weights.softmax(dim=3)
        sums = weights.sum(dim=1, keepdim=True) + 1e-9
        weights = weights.mul_(sums.reciprocal_()) if spare(weights) else weights / sums
        mixed = self.values(weights.to(scores.dtype).view(scores.shape).t())
        return mixed.unflatten(0, x.shape[:2])


class EABlock(nn.Module):
    """External attention and an MLP, each behind a norm and beside a shortcut: (N, T, C)."""

    def __init__(self, arch: EAMLPArch, drop_path: float, act_cfg: dict, lean: bool = True) -> None:
        super().__init__()
        self.run = runner(lean)
        dim = arch.dim
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = TokenMixer(dim, arch.heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = LinearMLP(dim, arch.mlp_ratio * dim, dim, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(x, self.norm1, self.run))
        return x + self.drop_path(self.mlp(x, self.norm2, self.run))

    def deploy_state(self) -> dict[str, Tensor]:
        """The tensors of :class:`FusedEABlock` that compute the same."""
        mixer = self.mixer.deploy_state(self.norm1.weight)
        state = {f'mixer.{k}': v for k, v in mixer.items()}
        return state | folded_mlp(self.mlp, self.norm2)


def folded_mlp(mlp: LinearMLP, norm: nn.LayerNorm) -> dict[str, Tensor]:
    """The tensors of a part ``mlp`` with scale and shift of the norm in front of it folded in."""
    state = {f'mlp.{k}': v for k, v in mlp.named_parameters()}
    state['mlp.fc1.weight'], state['mlp.fc1.bias'] = fuse_norm_before(
        mlp.fc1.weight, mlp.fc1.bias, *affine_of(norm)
    )
    return state


class FusedEABlock(nn.Module):
    """The block's deploy form."""

    def __init__(self, arch: EAMLPArch, act_cfg: dict) -> None:
        super().__init__()
        dim = arch.dim
        self.mixer = FusedAttention(dim, WIDENING * arch.heads, UNITS)
        self.mlp = LinearMLP(dim, arch.mlp_ratio * dim, dim, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = added(self.mixer(F.layer_norm(x, x.shape[2:])), x)
        return mlp_added(x, F.layer_norm(x, x.shape[2:]), self.mlp)


class TokenAttention(nn.Module):
    """What the release's token performer does to its narrowed patches: (N, H, W, C) -> the same."""

    def __init__(self, channels: int, drop_rate: float, act_cfg: dict, lean: bool = True) -> None:
        super().__init__()
        self.run = runner(lean)
        self.attention = ExternalAttention(channels, 2 * channels, bias=False, drop_rate=drop_rate)
        self.proj = Linear(channels, channels)
        self.drop = nn.Dropout(drop_rate)
        self.norm = nn.LayerNorm(channels)
        self.mlp = LinearMLP(channels, channels, channels, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attention(x.flatten(1, 2), self.run)
        x = x + self.drop(self.proj(attended)).view_as(x)
        return x + self.mlp(x, self.norm, self.run)

    def deploy_state(self) -> dict[str, Tensor]:
        """The tensors of :class:`FusedTokenAttention` that compute the same."""
        values = self.attention.values
        return folded_mlp(self.mlp, self.norm) | {
            'attention.keys.weight': self.attention.keys.weight,
            'attention.values.weight': self.proj.weight @ values.weight,
            'attention.values.bias': self.proj.weight @ values.bias + self.proj.bias,
        }


class FusedTokenAttention(nn.Module):
    """The same in deploy form."""

    def __init__(self, channels: int, act_cfg: dict) -> None:
        super().__init__()
        self.attention = FusedAttention(channels, 1, 2 * channels)
        self.mlp = LinearMLP(channels, channels, channels, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = added(self.attention(x.flatten(1, 2)).view_as(x), x)
        return mlp_added(x, F.layer_norm(x, x.shape[3:]), self.mlp)


class SoftSplit(nn.Module):
    """Gather overlapping patches and narrow them: (N, H, W, C) -> (N, H', W', C').

    Args:
        in_channels: C.
        channels: C'.
        kernel_size: side of a patch, in positions.
        stride: positions from one patch to the next.
        padding: zeros around the map.
        norm: whether patches are normed before.
        deploy: scale and shift of the norm folded, values of a patch in the order of the memory.
        lean: gather and norm patches again in the backward pass.
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
        deploy: bool = False,
        lean: bool = True,
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        width = in_channels * kernel_size * kernel_size
        self.norm = nn.LayerNorm(width, elementwise_affine=not deploy) if norm else nn.Identity()
        self.proj = Linear(width, channels)
        self.deploy, self.run = deploy, runner(lean)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self.proj, self.patches, x, modules=(self.norm,))

    def patches(self, x: Tensor) -> Tensor:
        """The patches, normed: (N, H', W', C * k * k), in deploy form (N, H', W', k * k * C)."""
        sides = self.kernel_size, self.stride, self.padding
        return self.norm(patches(x, *sides, channels_last=self.deploy))

    def deploy_state(self) -> dict[str, Tensor]:
        """The deploy form's tensors, computed from this train form's."""
        weight, bias = self.proj.weight, self.proj.bias
        if isinstance(self.norm, nn.LayerNorm):
            weight, bias = fuse_norm_before(weight, bias, *affine_of(self.norm))
        sides = (self.kernel_size,) * 2
        ordered = weight.unflatten(1, (-1, *sides)).permute(0, 2, 3, 1).flatten(1)
        return {'proj.weight': ordered, 'proj.bias': bias}


class Tokens(SoftSplit):
    """The last soft split, and what makes tokens of its map: the class token and the positions."""

    def __init__(self, in_channels: int, channels: int, **split: Any) -> None:
        super().__init__(in_channels, channels, norm=False, **split)
        if self.deploy:
            self.register_buffer('table', sinusoids(TABLE, channels))
        self.cls_token = nn.Parameter(torch.empty(1, 1, channels))
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        self._table: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, 1 + H' * W', C'), the class token first."""
        x = super().forward(x)
        first = self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1)
        x = torch.cat([first, x.flatten(1, 2)], dim=1)
        return added(x, self._positions(x).to(x.dtype))

    def deploy_state(self) -> dict[str, Tensor]:
        table = sinusoids(TABLE, self.cls_token.shape[2])
        return super().deploy_state() | {'cls_token': self.cls_token, 'table': table}

    def _positions(self, x: Tensor) -> Tensor:
        """The table for tokens (N, T, C): kept from one image to the next of the same size."""
        if self.deploy and not any_size() and x.shape[1] <= TABLE:
            return self.table[: x.shape[1]]
        if any_size():
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
        lean: compute norms, activations, patches and shares again in the backward pass; see
            :class:`MLPBackbone`.
        deploy: build the deploy form: norms folded, linear layers that follow each other merged,
            positions held for images of up to 577 tokens. It is for inference and takes the weights
            that :func:`mmwave.deploy.to_deploy` makes.
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
    kept_settings = (*MLPBackbone.kept_settings, 'out_type')
    form_marks = ('.mlp.fc2.weight', '.mixer.expand.weight')

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
        lean: bool = True,
        deploy: bool = False,
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
            lean=lean,
            deploy=deploy,
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
        forms = dict(deploy=deploy, lean=lean)
        self.stem = SoftSplit(in_channels, token, kernel_size=7, stride=4, padding=2, **forms)
        halving = dict(kernel_size=3, stride=2, padding=1, **forms)
        joints = (SoftSplit(token, token, **halving), Tokens(token, sizes.dim, **halving))
        self.downsamples = nn.ModuleList([*joints, nn.Identity()][: len(stages) - 1])
        rates = drop_path_rates(drop_path_rate, sizes.depths[2:])

        def attention() -> nn.Module:
            if deploy:
                return FusedTokenAttention(token, self.act_cfg)
            return TokenAttention(token, token_drop_rate, self.act_cfg, lean)

        def block(drop_path: float) -> nn.Module:
            if deploy:
                return FusedEABlock(sizes, self.act_cfg)
            return EABlock(sizes, drop_path, self.act_cfg, lean)

        self.stages = nn.ModuleList(
            nn.Sequential(*(block(rate) for rate in rates[i - 2]))
            if i > 1
            else nn.Sequential(attention())
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
        grid = x.shape[1], x.shape[2]
        for i in range(self.num_stages):
            if i:
                x = self.downsamples[i - 1](x)
            if i in (1, 2):
                grid = counts(grid, (2, 2))
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
        for stage in () if self.deploy else self.stages[:2]:
            attention = stage[0].attention
            with torch.no_grad():
                attention.values.weight.copy_(attention.keys.weight.T)

    def deploy_state(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        state = {f'out_norms.{k}': v for k, v in self.out_norms.state_dict().items()}
        splits = {f'downsamples.{i}': s for i, s in enumerate(self.downsamples[:2])}
        parts = {'stem': self.stem, **splits} | {
            f'stages.{i}.{j}': b for i, s in enumerate(self.stages) for j, b in enumerate(s)
        }
        for name, part in parts.items():
            state |= {f'{name}.{k}': v for k, v in part.deploy_state().items()}
        attentions = len(parts) - 1 - len(splits)
        blocks = sum(len(stage) for stage in self.stages[2:])
        lines = (
            f'the norms in front of {min(len(splits), 1) + 1} soft splits and {attentions} MLPs '
            'into their first layers',
            f'what follows the values of {attentions} attentions into them',
        )
        if not blocks:
            return state, lines
        return state, (*lines, f'norm, widening and comparison of {blocks} attentions into one')
