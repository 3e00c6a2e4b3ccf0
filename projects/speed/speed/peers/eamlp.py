"""EAMLP as the release computes it (arXiv:2105.02358), to measure ours against.

Operation by operation: patches are gathered by unfolding a map (N, C, H, W) into columns and
transposed to tokens, token attentions work on all of them at once, a block's attention puts its
heads in front of the tokens by a permute and behind them again, the position table is a tensor of
the trained size, the last norm runs over the class token as well. The release infers with what it
trains. Dropout and drop path are left out; to compare a training step, ours is to have none.

Tensors have the names and shapes of :class:`mmwave.models.EAMLP`.

Shapes: N images, T tokens (with the class token one more), C channels, G heads, U memory units.
"""

import torch
from torch import Tensor, nn

from mmwave.models import EAMLP
from mmwave.models.backbones.eamlp import UNITS, WIDENING, EAMLPArch
from mmwave.models.layers import build_activation
from mmwave.ops.sinusoids import sinusoids
from mmwave.structures import SizeConstraint

from .base import last_level

SIDE = 224
"""Pixels of an image's side: the release accepts squares of the size that its table is made for."""
STEPS = (dict(kernel_size=7, stride=4, padding=2), *(dict(kernel_size=3, stride=2, padding=1),) * 2)
"""Arguments of unfold in front of the two token attentions, and in front of the blocks."""


def sizes(arch: EAMLPArch) -> SizeConstraint:
    """Return the one image size."""
    return SizeConstraint(only=(SIDE, SIDE))


class MLP(nn.Module):
    """Two linear layers: (N, T, C) -> (N, T, C)."""

    def __init__(self, channels: int, hidden: int, act_cfg: dict) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden)
        self.act = build_activation(act_cfg)
        self.fc2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Memory(nn.Module):
    """External attention: (..., T, C) -> (..., T, C)."""

    def __init__(self, channels: int, units: int, *, bias: bool) -> None:
        super().__init__()
        self.keys = nn.Linear(channels, units, bias=bias)
        self.values = nn.Linear(units, channels)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.keys(x).softmax(dim=-2)
        weights = weights / (1e-9 + weights.sum(dim=-1, keepdim=True))
        return self.values(weights)


class Patches(nn.Module):
    """Gathered patches, normed in front of a token attention, and narrowed: tokens (N, T, C)."""

    def __init__(self, c_in: int, c_out: int, step: int, *, norm: bool = True) -> None:
        super().__init__()
        self.step = STEPS[step]
        width = c_in * self.step['kernel_size'] ** 2
        self.norm = nn.LayerNorm(width) if norm else nn.Identity()
        self.proj = nn.Linear(width, c_out)

    def forward(self, x: Tensor) -> Tensor:
        columns = nn.functional.unfold(x, **self.step)
        return self.proj(self.norm(columns.transpose(1, 2)))


class Tokens(Patches):
    """The last patches, with the class token in front and the positions added."""

    table: Tensor

    def __init__(self, c_in: int, c_out: int, step: int) -> None:
        super().__init__(c_in, c_out, step, norm=False)
        self.cls_token = nn.Parameter(torch.empty(1, 1, c_out))
        count = 1 + _side(step) ** 2
        self.register_buffer('table', sinusoids(count, c_out), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x)
        first = self.cls_token.expand(len(x), -1, -1)
        return torch.cat([first, x], dim=1) + self.table


def _side(step: int) -> int:
    """Return the positions along a side of the map behind a step."""
    side = SIDE
    for k in STEPS[: step + 1]:
        side = (side + 2 * k['padding'] - k['kernel_size']) // k['stride'] + 1
    return side


class TokenAttention(nn.Module):
    """What follows on the narrowing in the release's token performer: (N, T, C) -> (N, T, C)."""

    def __init__(self, channels: int, act_cfg: dict) -> None:
        super().__init__()
        self.attention = Memory(channels, 2 * channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.norm = nn.LayerNorm(channels)
        self.mlp = MLP(channels, channels, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.proj(self.attention(x))
        return x + self.mlp(self.norm(x))


class Mixer(nn.Module):
    """External attention of several heads: (N, T, C) -> (N, T, C)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = WIDENING * heads
        self.expand = nn.Linear(channels, WIDENING * channels)
        self.attention = Memory(channels // heads, UNITS, bias=True)
        self.proj = nn.Linear(WIDENING * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        (n, tokens, _) = x.shape
        heads = self.expand(x).reshape(n, tokens, self.heads, -1).permute(0, 2, 1, 3)
        mixed = self.attention(heads).permute(0, 2, 1, 3)
        return self.proj(mixed.reshape(n, tokens, -1))


class Block(nn.Module):
    """External attention and an MLP, each behind a norm and beside a shortcut: (N, T, C)."""

    def __init__(self, arch: EAMLPArch, act_cfg: dict) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(arch.dim)
        self.mixer = Mixer(arch.dim, arch.heads)
        self.norm2 = nn.LayerNorm(arch.dim)
        self.mlp = MLP(arch.dim, arch.mlp_ratio * arch.dim, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Published(nn.Module):
    """The release's only form, with a copy of the weights of ``model``, our train form."""

    def __init__(self, model: EAMLP) -> None:
        super().__init__()
        arch, act_cfg, token = model.arch, model.act_cfg, model.arch.token_dim
        self.sizes = sizes(arch)
        self.stem = Patches(model.in_channels, token, 0)
        joints = (Patches(token, token, 1), Tokens(token, arch.dim, 2), nn.Identity())
        self.downsamples = nn.ModuleList(joints[: model.num_stages - 1])
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(arch, act_cfg) for _ in range(arch.depths[i])))
            if i > 1
            else nn.Sequential(TokenAttention(token, act_cfg))
            for i in range(model.num_stages)
        )
        dims = (token, token, arch.dim, arch.dim)
        self.out_norms = nn.ModuleDict({str(i): nn.LayerNorm(dims[i]) for i in model.out_indices})
        self.train(model.training).to(next(model.parameters()))
        self.load_state_dict(model.state_dict())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, C, H, W) of the trained size to the output levels."""
        self.sizes.check(x.shape[2], x.shape[3])
        outputs = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            if i:
                x = self.downsamples[i - 1](_map(x, i - 1) if i < 3 else x)
            x = stage(x)
            if str(i) in self.out_norms:
                tokens = self.out_norms[str(i)](x)
                outputs.append(_map(tokens[:, 1:] if i > 1 else tokens, i))
        return tuple(outputs)


def _map(tokens: Tensor, stage: int) -> Tensor:
    """Lay tokens of a stage out as a map: (N, T, C) -> (N, C, H, W)."""
    side = _side(min(stage, 2))
    return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)


PEERS = (
    last_level(
        EAMLP,
        Published,
        sizes=sizes,
        settings={'token_drop_rate': 0.0},
        suites={'inference_224': ('7',)},
    ),
)
