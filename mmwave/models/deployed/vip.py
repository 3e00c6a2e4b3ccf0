"""Vision Permutator in deploy form: the channel MLPs' norms folded, segments copied in fewer words.

The weights of the blend are (N, 3 * C), those of a branch side by side.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_before
from mmwave.models.layers import affine_of
from mmwave.models.layers.branches import by_branch
from mmwave.models.layers.deployed import ConstantLinear, ConstantMLP, add_blend
from mmwave.models.layers.inplace import add, may_overwrite
from mmwave.models.layers.token_grid import TokenGrid

from . import Deployed


class FusedPermuteMLP(nn.Module):
    """The mixer, shortcut included: (M, h, w, C) twice -> (M, h, w, C).

    Args:
        mixer: a ``PermuteMLP``.
    """

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        self.height, self.width = (
            ConstantLinear.like(mixer.height),
            ConstantLinear.like(mixer.width),
        )
        self.channel = ConstantLinear.like(mixer.channel)
        self.reweight = ConstantMLP.like(mixer.reweight)
        self.proj = ConstantLinear.like(mixer.proj)

    def forward(self, x: Tensor, shortcut: Tensor, grid: TokenGrid) -> Tensor:
        h = _mixed_along(1, x, self.height, grid)
        w = _mixed_along(2, x, self.width, grid)
        c = self.channel(x)
        weights = self.reweight(grid.mean(add(h + w, c))).unflatten(1, (3, -1)).softmax(dim=1)
        weight_h, weight_w, weight_c = (grid.spread(weight) for weight in weights.unbind(dim=1))
        return add_blend(shortcut, [c, h, w], [weight_c, weight_h, weight_w], self.proj)


def _mixed_along(axis: int, x: Tensor, mix: nn.Module, grid: TokenGrid) -> Tensor:
    """Mix heights (axis 1) or widths (axis 2) and the channels of a segment, all in one layer."""
    side = grid.window[axis - 1]
    segments = grid.to_trained(x, axes=(axis,)).unflatten(3, (side, -1))
    mixed = mix(_swapped(segments, axis)).unflatten(3, (side, -1))
    return grid.from_trained(_swapped(mixed, axis), axes=(axis,))


def _swapped(segments: Tensor, axis: int) -> Tensor:
    """Segments (M, H, W, S, C / S) with ``axis`` and S exchanged, the last two axes then joined."""
    if may_overwrite(segments):  # no graph sees the views
        # A segment is a few values: as fewer wider ones it is copied in half the time.
        for wide in (torch.int64, torch.int32):
            if segments.shape[4] * segments.element_size() % wide.itemsize == 0:
                moved = segments.contiguous().view(wide).transpose(axis, 3).contiguous()
                return moved.flatten(3).view(segments.dtype)
    return segments.transpose(axis, 3).flatten(3)


class FusedViPBlock(nn.Module):
    """A block: (M, H, W, C) -> (M, H, W, C).

    The first norm keeps its scale: segments share a matrix, into which those of their channels do
    not fold.

    Args:
        block: a ``ViPBlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.norm1, self.eps = block.norm1, block.norm2.eps
        self.mixer = FusedPermuteMLP(block.mixer)
        self.mlp = ConstantMLP.like(block.mlp)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        x = self.mixer(self.norm1(x), x, grid)
        return self.mlp.add_to(x, F.layer_norm(x, x.shape[3:], eps=self.eps))

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``ViPBlock`` in deploy form."""
        state = {k: v for k, v in block.state_dict().items() if not k.startswith('norm2.')}
        first = block.mlp.fc1
        state['mlp.fc1.weight'], state['mlp.fc1.bias'] = fuse_norm_before(
            first.weight, first.bias, *affine_of(block.norm2)
        )
        for name in ('mixer.reweight.fc2.weight', 'mixer.reweight.fc2.bias'):
            state[name] = by_branch(state[name])
        return state


PARTS: Mapping[str, type[Deployed]] = MappingProxyType({'ViPBlock': FusedViPBlock})
MARKS = ('.mixer.proj.weight', '.norm2.weight')


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in a Vision Permutator."""
    return (f'the norms in front of {backbone.num_blocks} channel MLPs into their first layers',)
