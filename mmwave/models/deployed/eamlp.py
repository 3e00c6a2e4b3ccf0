"""EAMLP in deploy form: norms folded, and what is linear around an attention's memory merged."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_before
from mmwave.models.layers import affine_of
from mmwave.models.layers.deployed import ConstantLinear, ConstantMLP
from mmwave.models.layers.inplace import add, may_overwrite, multiply
from mmwave.ops import linear, patches
from mmwave.ops.graphs import is_tracing
from mmwave.ops.sinusoids import sinusoids

from . import Deployed

NUM_POSITIONS = 1 + 24 * 24
"""Tokens that positions are stored for: as many as in images of 384 x 384, the largest that weights
were published for. Smaller images have the first of them."""
CPU_CHUNK = 2048
"""Tokens that an attention maps at a time on the CPU, in whole images."""


class FusedAttention(nn.Module):
    """External attention, with what is linear around it: (N, T, C) -> (N, T, C).

    The scores of all heads are one product of the tokens, without the biases, which the softmax
    cancels; what follows the values is merged with them. Scores are transposed in memory, so that
    the softmax runs along the last axis.

    Args:
        channels: C.
        heads: G.
        units: M.
    """

    def __init__(self, channels: int, heads: int, units: int) -> None:
        super().__init__()
        self.heads = heads
        self.keys = ConstantLinear(channels, heads * units, bias=False)
        self.values = ConstantLinear(heads * units, channels)

    def forward(self, x: Tensor) -> Tensor:
        if not (x.is_cpu and may_overwrite(x)) or x.shape[0] * x.shape[1] <= CPU_CHUNK:
            return self._mixed(x)
        step = max(CPU_CHUNK // x.shape[1], 1)
        return torch.cat([self._mixed(part) for part in x.split(step)])

    def _mixed(self, x: Tensor) -> Tensor:
        scores = linear(self.keys.weight, x.flatten(0, 1))  # (G * M, N * T)
        exact = torch.promote_types(scores.dtype, torch.float32)
        units = len(scores) // self.heads  # not -1, which an empty batch leaves open
        weights = scores.view(self.heads, units, *x.shape[:2]).to(exact)
        weights = weights.softmax(dim=3)
        sums = weights.sum(dim=1, keepdim=True) + 1e-9
        weights = multiply(weights, sums.reciprocal())
        mixed = self.values(weights.to(scores.dtype).view(scores.shape).t())
        return mixed.unflatten(0, x.shape[:2])


class FusedEABlock(nn.Module):
    """A block: (N, T, C) -> (N, T, C).

    Args:
        block: an ``EABlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        mixer = block.mixer
        units = mixer.attention.keys.out_features
        self.mixer = FusedAttention(mixer.proj.out_features, mixer.heads, units)
        self.mlp = ConstantMLP.like(block.mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = add(self.mixer(F.layer_norm(x, x.shape[2:])), x)
        return self.mlp.add_to(x, F.layer_norm(x, x.shape[2:]))

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of an ``EABlock`` in deploy form."""
        mixer, attention = block.mixer, block.mixer.attention
        # The softmax cancels what all tokens have in common: every bias before it, the norm's too.
        widened = mixer.expand.weight.unflatten(0, (mixer.heads, -1))
        keys = torch.einsum('md,gdc->gmc', attention.keys.weight, widened).flatten(0, 1)
        gathered = mixer.proj.weight.unflatten(1, (mixer.heads, -1))
        values = torch.einsum('cgd,dm->cgm', gathered, attention.values.weight).flatten(1)
        return _folded_mlp(block.mlp, block.norm2) | {
            'mixer.keys.weight': keys * block.norm1.weight,
            'mixer.values.weight': values,
            'mixer.values.bias': mixer.proj.bias + gathered.sum(dim=1) @ attention.values.bias,
        }


class FusedTokenAttention(nn.Module):
    """A token attention: (N, H, W, C) -> (N, H, W, C).

    Args:
        part: a ``TokenAttention``.
    """

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        keys = part.attention.keys
        self.attention = FusedAttention(keys.in_features, 1, keys.out_features)
        self.mlp = ConstantMLP.like(part.mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = add(self.attention(x.flatten(1, 2)).view_as(x), x)
        return self.mlp.add_to(x, F.layer_norm(x, x.shape[3:]))

    @staticmethod
    def fold(part: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``TokenAttention`` in deploy form."""
        keys, values, proj = part.attention.keys, part.attention.values, part.proj
        return _folded_mlp(part.mlp, part.norm) | {
            'attention.keys.weight': keys.weight,
            'attention.values.weight': proj.weight @ values.weight,
            'attention.values.bias': proj.weight @ values.bias + proj.bias,
        }


def _folded_mlp(mlp: nn.Module, norm: nn.Module) -> dict[str, Tensor]:
    """The tensors of a part ``mlp`` with scale and shift of the norm in front of it folded in."""
    state = {f'mlp.{k}': v for k, v in mlp.state_dict().items()}
    state['mlp.fc1.weight'], state['mlp.fc1.bias'] = fuse_norm_before(
        mlp.fc1.weight, mlp.fc1.bias, *affine_of(norm)
    )
    return state


class FusedSoftSplit(nn.Module):
    """A soft split whose patches are ordered as they are in memory: row, column, channel.

    Args:
        split: a ``SoftSplit``.
    """

    def __init__(self, split: nn.Module) -> None:
        super().__init__()
        self.sides = split.kernel_size, split.stride, split.padding
        self.normed = isinstance(split.norm, nn.LayerNorm)
        self.proj = ConstantLinear.like(split.proj)

    def forward(self, x: Tensor) -> Tensor:
        x = patches(x, *self.sides, channels_last=True)
        return self.proj(F.layer_norm(x, x.shape[3:]) if self.normed else x)

    @staticmethod
    def fold(split: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``SoftSplit`` in deploy form."""
        weight, bias = split.proj.weight, split.proj.bias
        if isinstance(split.norm, nn.LayerNorm):
            weight, bias = fuse_norm_before(weight, bias, *affine_of(split.norm))
        sides = (split.kernel_size,) * 2
        ordered = weight.unflatten(1, (-1, *sides)).permute(0, 2, 3, 1).flatten(1)
        return {'proj.weight': ordered, 'proj.bias': bias}


class FusedTokens(FusedSoftSplit):
    """The last soft split, a class token, and positions stored for images of usual sizes.

    Args:
        tokens: a ``Tokens``.
    """

    def __init__(self, tokens: nn.Module) -> None:
        super().__init__(tokens)
        self.cls_token = tokens.cls_token
        self.register_buffer('table', sinusoids(NUM_POSITIONS, tokens.proj.out_features))

    def forward(self, x: Tensor) -> Tensor:
        x = super().forward(x).flatten(1, 2)
        first = self.cls_token.to(x.dtype).expand(x.shape[0], -1, -1)
        x = torch.cat([first, x], dim=1)
        return add(x, self._positions(x).to(x.dtype))

    def _positions(self, x: Tensor) -> Tensor:
        """Positions of tokens (N, T, C): (T, C)."""
        if not is_tracing() and x.shape[1] <= NUM_POSITIONS:
            return self.table[: x.shape[1]]
        return sinusoids(x.shape[1], x.shape[2], x.device)

    @staticmethod
    def fold(tokens: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``Tokens`` in deploy form."""
        table = sinusoids(NUM_POSITIONS, tokens.proj.out_features)
        return FusedSoftSplit.fold(tokens) | {'cls_token': tokens.cls_token, 'table': table}


PARTS: Mapping[str, type[Deployed]] = MappingProxyType(
    {
        'SoftSplit': FusedSoftSplit,
        'Tokens': FusedTokens,
        'TokenAttention': FusedTokenAttention,
        'EABlock': FusedEABlock,
    }
)
# Whichever stages are built, there is a token attention, and the stem's norm in train form.
MARKS = ('.mlp.fc2.weight', '.norm.weight')


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in an EAMLP."""
    splits = min(len(backbone.downsamples), 1) + 1  # the last one has no norm
    blocks = sum(len(stage) for stage in backbone.stages[2:])
    return (
        f'the norms in front of {splits} soft splits and {backbone.num_blocks} MLPs into their '
        'first layers',
        f'what follows the values of {backbone.num_blocks} attentions into them',
        *([f'norm, widening and comparison of {blocks} attentions into one'] if blocks else []),
    )
