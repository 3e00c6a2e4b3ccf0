"""RepMLPNet in deploy form: norms folded into layers, local perceptrons into matrices."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mmwave.deploy.fuse import conv_to_fc, fuse_norm_after, fuse_norm_before, pad_kernel
from mmwave.models.layers import Affine, Conv2d, affine_of
from mmwave.models.layers.deployed import ConstantEmbed, ConstantMLP
from mmwave.models.layers.windows import MapGrid
from mmwave.ops import spatial_fc

from . import Deployed


class FusedPerceptron(nn.Module):
    """Both perceptrons for positions: mix windows (N * T, C, h, w) by S matrices.

    Args:
        perceptron: a ``ChannelPerceptron``.
    """

    def __init__(self, perceptron: nn.Module) -> None:
        super().__init__()
        self.weight = perceptron.weight
        self.bias = nn.Parameter(torch.zeros(self.weight.shape[:2]))

    def forward(self, windows: Tensor) -> Tensor:
        return spatial_fc(windows.flatten(2), self.weight, self.bias).view(windows.shape)


class FusedRepMLPBlock(nn.Module):
    """A block: (N, C, H, W) -> the same, or likewise windows (N * T, C, h, w), as its grid says.

    Args:
        block: a ``RepMLPBlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        ffn = block.ffn
        self.norm1 = Affine(len(block.norm1.weight))
        self.global_perceptron = ConstantMLP.like(block.global_perceptron)
        self.channel_perceptron = FusedPerceptron(block.channel_perceptron)
        fc1, fc2 = (Conv2d(fc.in_channels, fc.out_channels, 1) for fc in (ffn.fc1, ffn.fc2))
        self.ffn = ConstantMLP(fc1, ffn.act, fc2)

    def forward(self, x: Tensor, grid: MapGrid) -> Tensor:
        windows = grid.windows(self.norm1(x))
        factors = self.global_perceptron(grid.mean(windows)).sigmoid()
        mixed = grid.from_windows(self.channel_perceptron(windows))
        x = x.addcmul(mixed, grid.spread(factors))
        if not x.is_cpu:
            return x + self.ffn.fc2(self.ffn.act(self.ffn.fc1(x)))
        # On a CPU a 1 x 1 convolution takes up to three times as long as a product of rows.
        rows = x.permute(0, 2, 3, 1).contiguous()
        return self.ffn.add_to(rows, rows).permute(0, 3, 1, 2).contiguous()

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``RepMLPBlock`` in deploy form."""
        channel, ffn = block.channel_perceptron, block.ffn
        matrices, offsets = fuse_norm_after(channel.weight, None, *affine_of(channel.norm))
        if block.local_perceptron is not None:
            more, offset = _as_matrices(block.local_perceptron, block.window)
            matrices, offsets = matrices + more, offsets + offset
        first = fuse_norm_after(ffn.fc1.weight, None, *affine_of(ffn.norm1))
        first = fuse_norm_before(*first, *affine_of(block.norm2))
        second = fuse_norm_after(ffn.fc2.weight, None, *affine_of(ffn.norm2))
        state = {
            f'global_perceptron.{k}': v for k, v in block.global_perceptron.state_dict().items()
        }
        state['norm1.weight'], state['norm1.bias'] = affine_of(block.norm1)
        state['channel_perceptron.weight'] = matrices
        state['channel_perceptron.bias'] = offsets[:, None].expand(matrices.shape[:2])
        state['ffn.fc1.weight'], state['ffn.fc1.bias'] = first
        state['ffn.fc2.weight'], state['ffn.fc2.bias'] = second
        return state | {f'ffn.act.{k}': v for k, v in ffn.act.state_dict().items()}


def _as_matrices(local: nn.Module, window: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The sum of all branches of a ``LocalPerceptron`` as (S, P, P) matrices and (S,) biases."""
    size = (max(map(int, local)),) * 2
    folded = [
        fuse_norm_after(b['conv'].weight, None, *affine_of(b['norm'])) for b in local.values()
    ]
    kernel = sum(pad_kernel(weight, size) for weight, _ in folded)
    return conv_to_fc(kernel, window), sum(bias for _, bias in folded)


PARTS: Mapping[str, type[Deployed]] = MappingProxyType(
    {'ConvEmbed': ConstantEmbed, 'RepMLPBlock': FusedRepMLPBlock}
)
MARKS = ('.channel_perceptron.weight', '.channel_perceptron.norm.weight')


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in a RepMLPNet."""
    branches, blocks = len(backbone.arch.kernels), backbone.num_blocks
    return (
        f'the norms of {backbone.num_stages} embeddings into their convolutions',
        f'{branches} local branches and {branches + 1} norms into the matrices of each of '
        f'{blocks} channel perceptrons',
        f'3 norms into the 2 convolutions of each of {blocks} channel MLPs',
    )
