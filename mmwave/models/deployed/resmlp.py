"""ResMLP in deploy form: affine layers and scales folded into the channel MLPs."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_after, fuse_norm_before
from mmwave.models.layers import affine_of
from mmwave.models.layers.deployed import ConstantMLP
from mmwave.models.layers.token_grid import TokenGrid

from . import Deployed


class FusedResMLPBlock(nn.Module):
    """A block: (M, H, W, C) -> (M, H, W, C).

    Args:
        block: a ``ResMLPBlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        # Where a map is padded, the positions' matrix sees zeros: no shift can be folded into it.
        self.norm1, self.tokens, self.scale1 = block.norm1, block.tokens, block.scale1
        self.mlp = ConstantMLP.like(block.mlp)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        x = torch.addcmul(x, grid.mixed(self.norm1(x), self.tokens), self.scale1)
        return self.mlp.add_to(x, x)

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``ResMLPBlock`` in deploy form."""
        gone = ('norm2.', 'scale2')
        state = {k: v for k, v in block.state_dict().items() if not k.startswith(gone)}
        first, second = block.mlp.fc1, block.mlp.fc2
        state['mlp.fc1.weight'], state['mlp.fc1.bias'] = fuse_norm_before(
            first.weight, first.bias, *affine_of(block.norm2)
        )
        state['mlp.fc2.weight'], state['mlp.fc2.bias'] = fuse_norm_after(
            second.weight, second.bias, block.scale2, torch.zeros_like(block.scale2)
        )
        return state


PARTS: Mapping[str, type[Deployed]] = MappingProxyType({'ResMLPBlock': FusedResMLPBlock})
MARKS = ('.tokens.weight', '.scale2')


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in a ResMLP."""
    return (
        'the affine layer in front and the scale behind into the channel MLP of each of '
        f'{backbone.num_blocks} blocks',
    )
