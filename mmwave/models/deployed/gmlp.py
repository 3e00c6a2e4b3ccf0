"""gMLP in deploy form: the block's norm folded into its first layer."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_before
from mmwave.models.layers import affine_of
from mmwave.models.layers.deployed import ConstantLinear, linear_activated
from mmwave.models.layers.inplace import add, multiply
from mmwave.models.layers.token_grid import TokenGrid

from . import Deployed


class FusedGMLPBlock(nn.Module):
    """A block: (M, H, W, C) -> (M, H, W, C).

    Args:
        block: a ``GMLPBlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.eps, self.act, self.gate = block.norm.eps, block.act, block.gate
        self.fc1, self.fc2 = ConstantLinear.like(block.fc1), ConstantLinear.like(block.fc2)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        normed, half = F.layer_norm(x, x.shape[3:], eps=self.eps), self.fc2.in_features
        # Two products for two halves, each in memory of its own: the gate's norm, the activation
        # and the product of both read a half of a larger tensor much slower.
        weight, bias = self.fc1.weight, self.fc1.bias
        gate = linear_activated(normed, weight[half:], bias[half:], self.act)
        factors = grid.mixed(self.gate.norm(gate), self.gate.proj)
        gated = linear_activated(normed, weight[:half], bias[:half], self.act)
        return add(self.fc2(multiply(gated, factors)), x)

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``GMLPBlock`` in deploy form."""
        state = {k: v for k, v in block.state_dict().items() if not k.startswith('norm.')}
        state['fc1.weight'], state['fc1.bias'] = fuse_norm_before(
            block.fc1.weight, block.fc1.bias, *affine_of(block.norm)
        )
        return state


PARTS: Mapping[str, type[Deployed]] = MappingProxyType({'GMLPBlock': FusedGMLPBlock})
# Of the first block of any stage: the gate has a norm as well.
MARKS = ('.gate.proj.weight', '.0.norm.weight')


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in a gMLP."""
    return (
        f'scale and shift of the norm into the first layer of each of {backbone.num_blocks} blocks',
    )
