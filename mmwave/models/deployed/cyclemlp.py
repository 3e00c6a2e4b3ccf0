"""CycleMLP in deploy form: weights of the blend known before the products, channels last.

A block maps (N, H, W, C) to (N, H, W, C).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.models.layers.blended_branches import BlendedBranches
from mmwave.models.layers.deployed import ConstantMLP
from mmwave.ops import axial_shift

from . import ChannelsLastStage, Deployed


class FusedCycleBlock(nn.Module):
    """A block: (N, H, W, C) -> (N, H, W, C).

    The first norm keeps its scale and shift: behind it the map is padded by zeros.

    Args:
        block: a ``CycleBlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        mixer = block.mixer
        channels = mixer.proj.in_channels
        self.shifts = tuple((fc.offsets, fc.dim) for fc in (mixer.width, mixer.height))
        self.norm1 = nn.LayerNorm(channels, eps=block.norm1.eps)
        self.eps = block.norm2.eps
        self.mixer = BlendedBranches(_branches(mixer), mixer.reweight, mixer.proj)
        self.mlp = ConstantMLP.like(block.mlp)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm1(x)
        first = normed.permute(0, 3, 1, 2)
        shifted = [axial_shift(first, *shift).permute(0, 2, 3, 1) for shift in self.shifts]
        x = self.mixer([*shifted, normed], x)
        return self.mlp.add_to(x, F.layer_norm(x, x.shape[3:], eps=self.eps))

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``CycleBlock`` in deploy form."""
        mixer = block.mixer
        folded = BlendedBranches.fold(_branches(mixer), mixer.reweight, mixer.proj)
        mlp = ConstantMLP.fold(block.mlp, block.norm2)
        state = {f'norm1.{k}': v for k, v in block.norm1.state_dict().items()}
        state |= {f'mixer.{k}': v for k, v in folded.items()}
        return state | {f'mlp.{k}': v for k, v in mlp.items()}


def _branches(mixer: nn.Module) -> list[nn.Module]:
    """The branches of a ``CycleMixer``, in the order of their weights."""
    return [mixer.width, mixer.height, mixer.channel]


PARTS: Mapping[str, type[Deployed]] = MappingProxyType({'CycleBlock': FusedCycleBlock})
MARKS = ('.mixer.proj.weight', '.norm2.weight')
STAGE = ChannelsLastStage


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in a CycleMLP."""
    blocks = backbone.num_blocks
    return (
        f'the branches of {blocks} token mixers into their projections, on large maps',
        f'the norms in front of {blocks} channel MLPs into their first layers',
    )
