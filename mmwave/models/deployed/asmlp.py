"""AS-MLP in deploy form: norms' scales and shifts folded into layers, channels last.

A block maps (N, H, W, C) to (N, H, W, C). Its norms still take their statistics; of the first one
inside the token mixer, whose output goes through an activation, scale and shift stay as well.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_before
from mmwave.models.layers import affine_of
from mmwave.models.layers.deployed import ConstantLinear, ConstantMLP, linear_activated
from mmwave.models.layers.inplace import activate, add
from mmwave.ops import axial_shift
from mmwave.ops.layout import HEIGHT, WIDTH, channels_last
from mmwave.ops.windows import pad_to_multiples

from . import ChannelsLastStage, Deployed


def _normed(
    x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """A norm over all channels and positions of an image: (N, H, W, C) -> the same."""
    return F.group_norm(x.permute(0, 3, 1, 2), 1, weight, bias, eps).permute(0, 2, 3, 1)


class FusedAxialShift(nn.Module):
    """The token mixer, shortcut included: (N, H, W, C) twice -> (N, H, W, C).

    Args:
        mixer: an ``AxialShift``.
    """

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        channels = mixer.conv1.in_channels
        self.offsets, self.eps = mixer.offsets, mixer.norm2.eps
        self.conv1, self.conv_w, self.conv_h, self.conv2 = (
            ConstantLinear(channels, channels) for _ in range(4)
        )
        self.norm1, self.act = mixer.norm1, mixer.act

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        norm = self.norm1
        x = activate(self.act, _normed(self.conv1(x), norm.eps, norm.weight, norm.bias))
        across = self._mixed(x, self.conv_w, WIDTH)
        down = self._mixed(x, self.conv_h, HEIGHT)
        return add(self.conv2(_normed(add(across, down), self.eps)), shortcut)

    def _mixed(self, x: Tensor, layer: nn.Linear, dim: int) -> Tensor:
        shifted = axial_shift(x.permute(0, 3, 1, 2), self.offsets, dim).permute(0, 2, 3, 1)
        return linear_activated(shifted, layer.weight, layer.bias, self.act)


class FusedASMLPBlock(nn.Module):
    """A block whose norms' scales and shifts are folded: (N, H, W, C) -> (N, H, W, C).

    Args:
        block: an ``ASMLPBlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.eps1, self.eps2 = block.norm1.eps, block.norm2.eps
        self.mixer = FusedAxialShift(block.mixer)
        self.mlp = ConstantMLP.like(block.mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(_normed(x, self.eps1), x)
        return self.mlp.add_to(x, _normed(x, self.eps2))

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of an ``ASMLPBlock`` in deploy form."""
        norms = {
            'mixer.conv1': block.norm1,
            'mixer.conv2': block.mixer.norm2,
            'mlp.fc1': block.norm2,
        }
        folded = ('norm1.', 'norm2.', 'mixer.norm2.')
        state = {
            name: tensor.flatten(1) if tensor.dim() == 4 else tensor
            for name, tensor in block.state_dict().items()
            if not name.startswith(folded)
        }
        for layer, norm in norms.items():
            weight, bias = f'{layer}.weight', f'{layer}.bias'
            state[weight], state[bias] = fuse_norm_before(
                state[weight], state[bias], *affine_of(norm)
            )
        return state


class FusedPatchMerging(nn.Module):
    """Merged squares, their norm's scale and shift folded: (N, C_in, H, W) -> (N, C, H', W').

    What pads a map is normed with it, so that the norm's shift is one number per output channel.

    Args:
        merging: a ``PatchMerging``.
    """

    def __init__(self, merging: nn.Module) -> None:
        super().__init__()
        self.eps = merging.norm.eps
        self.reduction = ConstantLinear(
            merging.reduction.in_channels, merging.reduction.out_channels
        )

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiples(channels_last(x), 2).permute(0, 2, 3, 1)
        corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        merged = self.reduction(_normed(torch.cat(corners, dim=3), self.eps))
        return merged.permute(0, 3, 1, 2)

    @staticmethod
    def fold(merging: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``PatchMerging`` in deploy form."""
        weight, bias = fuse_norm_before(
            merging.reduction.weight.flatten(1), None, *affine_of(merging.norm)
        )
        return {'reduction.weight': weight, 'reduction.bias': bias}


PARTS: Mapping[str, type[Deployed]] = MappingProxyType(
    {'ASMLPBlock': FusedASMLPBlock, 'PatchMerging': FusedPatchMerging}
)
MARKS = ('.mixer.conv2.weight', '.mixer.norm2.weight')
STAGE = ChannelsLastStage


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in an AS-MLP."""
    blocks, merged = backbone.num_blocks, len(backbone.downsamples)
    return (
        f'scale and shift of 3 norms of each of {blocks} blocks into the layers behind them',
        *([f'those of {merged} patch mergings into their reductions'] if merged else []),
    )
