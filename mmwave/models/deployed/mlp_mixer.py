"""MLP-Mixer in deploy form: the channel MLP's norm folded into its first layer."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_before
from mmwave.models.layers import affine_of
from mmwave.models.layers.deployed import ConstantMLP
from mmwave.models.layers.inplace import activate, add
from mmwave.models.layers.token_grid import TokenGrid

from . import Deployed


class FusedMixerBlock(nn.Module):
    """A block: (M, H, W, C) -> (M, H, W, C).

    Args:
        block: a ``MixerBlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.norm1, self.token_mlp, self.eps = block.norm1, block.token_mlp, block.norm2.eps
        self.channel_mlp = ConstantMLP.like(block.channel_mlp)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        x = add(grid.mixed(self.norm1(x), self._mix), x)
        return self.channel_mlp.add_to(x, F.layer_norm(x, x.shape[3:], eps=self.eps))

    def _mix(self, tokens: Tensor) -> Tensor:
        mlp = self.token_mlp
        return mlp.fc2(activate(mlp.act, mlp.fc1(tokens)))

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``MixerBlock`` in deploy form."""
        state = {k: v for k, v in block.state_dict().items() if not k.startswith('norm2.')}
        first = block.channel_mlp.fc1
        state['channel_mlp.fc1.weight'], state['channel_mlp.fc1.bias'] = fuse_norm_before(
            first.weight, first.bias, *affine_of(block.norm2)
        )
        return state


PARTS: Mapping[str, type[Deployed]] = MappingProxyType({'MixerBlock': FusedMixerBlock})
MARKS = ('.channel_mlp.fc1.weight', '.norm2.weight')


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in an MLP-Mixer."""
    return (
        f'scale and shift of the norm into the channel MLP of each of {backbone.num_blocks} blocks',
    )
