"""ActiveMLP in deploy form: blend and projection in one, norms folded, channels last.

A block maps (N, H, W, C) to (N, H, W, C). Offsets (N, H, W, 2 * G) go from block to block.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_before
from mmwave.models.layers import Conv2d, affine_of
from mmwave.models.layers.blended_branches import BlendedBranches
from mmwave.models.layers.deployed import ConstantEmbed, ConstantLinear, ConstantMLP
from mmwave.ops import axial_sample
from mmwave.ops.layout import HEIGHT, WIDTH

from . import Deployed, Stage


class FusedActiveBlock(nn.Module):
    """A block whose norms are folded where zeros beyond the map allow it.

    Args:
        block: an ``ActiveBlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        channels = block.mixer.proj.in_channels
        self.position = self.offset_norm = self.offsets = None
        if block.position is not None:
            self.position = Conv2d(channels, channels, 3, padding=1, groups=channels)
        if block.offsets is not None:
            self.offset_norm = _without_affine(block.offsets.norm)
            self.offsets = ConstantLinear(channels, block.offsets.proj.out_channels)
        # What is sampled beyond the map is zero behind this norm: its shift cannot be folded.
        self.norm1 = nn.LayerNorm(channels, eps=block.norm1.eps)
        self.norm2 = _without_affine(block.norm2)
        self.mixer = BlendedBranches(*_branches(block.mixer))
        self.mlp = ConstantMLP.like(block.mlp)

    def forward(
        self, x: Tensor, offsets: Tensor | None, position: nn.Module
    ) -> tuple[Tensor, Tensor]:
        """Return the map and the offsets that it was read at, for the next block."""
        if self.offsets is not None:
            x = position(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            offsets = self.offsets(self.offset_norm(x))
        y = self.norm1(x)
        along_width, along_height = offsets.permute(0, 3, 1, 2).chunk(2, dim=1)
        c_first = y.permute(0, 3, 1, 2)
        w = axial_sample(c_first, along_width, WIDTH).permute(0, 2, 3, 1)
        h = axial_sample(c_first, along_height, HEIGHT).permute(0, 2, 3, 1)
        x = self.mixer((w, h, y), x)
        return self.mlp.add_to(x, self.norm2(x)), offsets

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of an ``ActiveBlock`` in deploy form."""
        state = {'norm1.weight': block.norm1.weight, 'norm1.bias': block.norm1.bias}
        if block.position is not None:
            weight = block.position.weight.clone()
            weight[:, :, 1, 1] += 1  # the map itself
            state |= {'position.weight': weight, 'position.bias': block.position.bias}
        if block.offsets is not None:
            proj, norm = block.offsets.proj, block.offsets.norm
            state['offsets.weight'], state['offsets.bias'] = fuse_norm_before(
                proj.weight.flatten(1), proj.bias, *affine_of(norm)
            )
        mixer = BlendedBranches.fold(*_branches(block.mixer))
        state |= {f'mixer.{key}': value for key, value in mixer.items()}
        mlp = ConstantMLP.fold(block.mlp, block.norm2)
        return state | {f'mlp.{k}': v for k, v in mlp.items()}


def _without_affine(norm: nn.LayerNorm) -> nn.LayerNorm:
    return nn.LayerNorm(norm.normalized_shape, eps=norm.eps, elementwise_affine=False)


def _branches(mixer: nn.Module) -> tuple[tuple[nn.Module, ...], nn.Module, nn.Module]:
    """What :class:`BlendedBranches` is made of, in the order of the blend."""
    return (mixer.width, mixer.height, mixer.channel), mixer.reweight, mixer.proj


class ActiveStage(Stage):
    """Blocks of maps with channels last: (N, C, H, W) -> (N, C, H, W)."""

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        x, offsets, position = x.permute(0, 2, 3, 1), None, self[0].position
        for block in self:
            x, offsets = block(x, offsets, position)
        return x.permute(0, 3, 1, 2)


PARTS: Mapping[str, type[Deployed]] = MappingProxyType(
    {'ConvEmbed': ConstantEmbed, 'ActiveBlock': FusedActiveBlock}
)
MARKS = ('.mixer.proj.weight', '.mixer.channel.weight')
STAGE = ActiveStage


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in an ActiveMLP."""
    blocks = [block for stage in backbone.stages for block in stage]
    predicting = sum(block.offsets is not None for block in blocks)
    return (
        f'the blend of each of {len(blocks)} token mixers into its projection, on large maps',
        f'the norms in front of {predicting} offset layers into these',
        f'the shortcuts of {len(backbone.stages)} position convolutions into these',
        f'the norms in front of {len(blocks)} channel MLPs into their first layers',
    )
