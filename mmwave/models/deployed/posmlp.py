"""PosMLP in deploy form: norms folded, kernels computed once, no copies around the mixing."""

import math
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_before
from mmwave.models.layers import affine_of
from mmwave.models.layers.deployed import ConstantEmbed, ConstantLinear, linear_activated
from mmwave.models.layers.inplace import activate, add, may_overwrite, multiply
from mmwave.models.layers.windows import mask_of
from mmwave.ops import conv2d, linear, positional_kernel, spatial_fc
from mmwave.ops.cache import cached
from mmwave.ops.graphs import is_dynamic, is_tracing
from mmwave.ops.layout import channels_last
from mmwave.ops.windows import by_parts, counts, cut, cuts, join, spans

from . import Deployed, Stage

CPU_CHUNK = 2048
"""Positions that a block computes at a time on the CPU, in whole windows."""
MAX_KERNELS = 4
"""Windows that a gate caches kernels for: an image has as many kinds of them."""


class KernelGate(nn.Module):
    """What a gate mixes windows by.

    It stores the kernels of trained windows, or what kernels of any size are computed from. The
    last few of those are cached, see :func:`~mmwave.ops.cache.cached`.

    Args:
        gate: a ``PositionalGate``.
    """

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.windows, self.bias = gate.windows, gate.bias
        if self.windows.resize:
            self.centers, self.spreads = gate.centers, gate.spreads
        else:
            positions = math.prod(self.windows.trained)
            self.kernel = nn.Parameter(torch.zeros(len(gate.centers), positions, positions))

    def kernels(self, window: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(S, P, P) and the bias (1, P) for windows of a size.

        Those smaller than the trained one are at the border of a map: what would be multiplied by
        the zeros around it is left out.
        """
        resize, trained = self.windows.resize, self.windows.trained
        if not resize and window == trained:
            return self.kernel, self.bias
        if resize:
            make, sources = self._evaluated, (self.centers, self.spreads, self.bias)
        else:
            make, sources = self._cropped, (self.kernel, self.bias)
        make = partial(make, window)
        if not may_overwrite(self.bias):  # a graph needs the operations
            return make(*sources)
        how = 'kernels', trained, window
        return cached(how, make, *sources, limit=MAX_KERNELS) or make(*sources)

    def _evaluated(
        self, window: tuple[int, int], centers: Tensor, spreads: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        kernel = positional_kernel(centers, spreads, window)
        return kernel.to(bias), self.windows.resampled(bias, window)

    def _cropped(
        self, window: tuple[int, int], kernel: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        (h, w), trained = window, self.windows.trained
        kernel = kernel.view(-1, *trained, *trained)[:, :h, :w, :h, :w]
        bias = bias.view(trained)[:h, :w]
        return kernel.flatten(3).flatten(1, 2), bias.reshape(1, -1)

    @staticmethod
    def fold(gate: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``PositionalGate`` in deploy form."""
        if gate.windows.resize:
            return gate.state_dict()
        kernel = positional_kernel(gate.centers, gate.spreads, gate.windows.trained)
        return {'kernel': kernel, 'bias': gate.bias}


class FusedPosMLPBlock(nn.Module):
    """A block, on windows of one size: (M, P, C) -> (M, P, C).

    The channels of a group are side by side between its two layers, and the tensors there are
    transposed, (hidden channels, M * P): the kernel of a group multiplies its rows without a copy.

    Args:
        block: a ``PosMLPBlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.eps = block.norm.eps
        self.fc1 = ConstantLinear.like(block.fc1)
        self.act = block.act
        self.gate = KernelGate(block.gate)
        self.fc2 = ConstantLinear.like(block.fc2)

    def forward(self, x: Tensor, window: tuple[int, int], mask: Tensor | None = None) -> Tensor:
        """Map windows of (h, w), in place of ``x`` where that may be overwritten.

        Args:
            x: (M, P, C).
            window: h and w.
            mask: (M, P), 1 on the map and 0 outside; None where windows are not filled up. Only
                graphs fill them up.
        """
        kernel, bias = self.gate.kernels(window)
        if is_tracing():
            return x + self._traced(x, kernel, bias, mask)
        if not may_overwrite(x):
            return x + self._branch(x, kernel, bias)
        step = max(CPU_CHUNK // x.shape[1], 1) if x.device.type == 'cpu' else x.shape[0]
        for part in x.split(step):
            part.add_(self._branch(part, kernel, bias))
        return x

    def _branch(self, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        rows = F.layer_norm(x, x.shape[2:], eps=self.eps).flatten(0, 1)
        hidden = add(linear(self.fc1.weight, rows), self.fc1.bias[:, None])
        mixed, gated = activate(self.act, hidden).chunk(2)
        mixed = mixed.view(kernel.shape[0], -1, kernel.shape[2]).transpose(0, 1)
        mixed = spatial_fc(mixed, kernel, bias.expand(len(kernel), -1)).transpose(0, 1)
        gate = multiply(mixed.reshape(gated.shape), gated)
        return self.fc2(gate.t()).view_as(x)

    def _traced(self, x: Tensor, kernel: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """:meth:`_branch` in a graph, whose compiler fuses copies with other work."""
        rows = F.layer_norm(x, x.shape[2:], eps=self.eps)
        hidden = linear_activated(rows, self.fc1.weight, self.fc1.bias, self.act)
        mixed, gated = hidden.chunk(2, dim=2)
        if mask is not None:
            mixed = mixed * mask[..., None]
        # (M, P, S, C / S) -> (M, C, P), channel c of group c mod S; and back.
        sets = len(kernel)
        mixed = mixed.unflatten(2, (sets, -1)).permute(0, 3, 2, 1).flatten(1, 2)
        mixed = spatial_fc(mixed, kernel, bias.expand(sets, -1))
        mixed = mixed.unflatten(1, (-1, sets)).permute(0, 3, 2, 1).flatten(2)
        return self.fc2(mixed * gated)

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``PosMLPBlock`` in deploy form."""
        fc1, fc2 = block.fc1, block.fc2
        weight, bias = fuse_norm_before(fc1.weight, fc1.bias, *affine_of(block.norm))
        # Channels of a group side by side: c mod S, c // S -> one after the other.
        channels = torch.arange(fc2.in_features).view(-1, len(block.gate.centers)).T.flatten()
        both = torch.cat([channels, len(channels) + channels])
        state = {f'gate.{k}': v for k, v in KernelGate.fold(block.gate).items()}
        state |= {f'act.{k}': v for k, v in block.act.state_dict().items()}
        state['fc1.weight'], state['fc1.bias'] = weight[both], bias[both]
        state['fc2.weight'], state['fc2.bias'] = fc2.weight[:, channels], fc2.bias
        return state


class PosMLPStage(Stage):
    """A stage whose map is cut once for all blocks: (N, H, W, C) -> (N, H, W, C)."""

    def forward(self, x: Tensor, *context: Any) -> Tensor:
        windows, size = self[0].gate.windows, x.shape[1:3]
        if is_dynamic(*size) and not (windows.resize or windows.filled):
            return self._filled_up(x, windows.trained)
        sides = spans if windows.resize else cuts
        rows, columns = (sides(n, s) for n, s in zip(size, windows.trained, strict=True))
        return by_parts(x, rows, columns, self._windowed)

    def _windowed(self, x: Tensor, window: tuple[int, int]) -> Tensor:
        """Map a part (N, H, W, C) that is filled by windows of one size."""
        h, w = window
        x = x.unflatten(1, (-1, h)).unflatten(3, (-1, w)).transpose(2, 3)
        # Blocks compute in place, so this is always a copy.
        tokens = x.clone(memory_format=torch.contiguous_format).flatten(3, 4).flatten(0, 2)
        tokens = super().forward(tokens, window)
        return tokens.view(x.shape).transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _filled_up(self, x: Tensor, window: tuple[int, int]) -> Tensor:
        """Map (N, H, W, C) in windows of one size, for graphs, whatever the size of the map."""
        size = (x.shape[1], x.shape[2])
        shape = counts(size, window)
        mask = mask_of(size, window, shape, like=x).flatten(1)
        tokens = cut(x.permute(0, 3, 1, 2), window, shape).flatten(2).transpose(1, 2)
        tokens = super().forward(tokens, window, mask)
        return join(tokens.transpose(1, 2).unflatten(2, window), size, shape).permute(0, 2, 3, 1)


class FusedConvStem(nn.Sequential):
    """The stem, channels last in memory from the image on: (N, C_in, H, W) -> (N, H / 4, W / 4, C).

    Args:
        stem: a ``ConvStem``.
    """

    def __init__(self, stem: nn.Module) -> None:
        super().__init__(*map(ConstantEmbed, stem))

    def forward(self, x: Tensor) -> Tensor:
        x = channels_last(x)
        for embed in self:
            x = activate(embed.act, embed.conv(x))
        return x.permute(0, 2, 3, 1).contiguous()

    @staticmethod
    def fold(stem: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``ConvStem`` in deploy form."""
        return {
            f'{i}.{k}': v
            for i, embed in enumerate(stem)
            for k, v in ConstantEmbed.fold(embed).items()
        }


class SplitDownsample(nn.Module):
    """A downsample, several outputs of each input computed by as many depthwise convolutions.

    Libraries have fast convolutions for one output of each input alone.

    Args:
        downsample: a ``Downsample``.
    """

    def __init__(self, downsample: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = downsample.conv, downsample.norm

    def forward(self, x: Tensor) -> Tensor:
        channels, conv = x.shape[3], self.conv
        pairs = zip(conv.weight.split(channels), conv.bias.split(channels), strict=True)
        x, sides = x.permute(0, 3, 1, 2), (conv.stride, conv.padding)
        outputs = [conv2d(x, w, b, *sides, groups=channels) for w, b in pairs]
        return self.norm(torch.stack([o.permute(0, 2, 3, 1) for o in outputs], dim=4).flatten(3))

    @staticmethod
    def fold(downsample: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``Downsample`` in deploy form."""
        state = downsample.state_dict()
        for name in ('conv.weight', 'conv.bias'):
            outputs = state[name].unflatten(0, (downsample.conv.in_channels, -1))
            state[name] = outputs.transpose(0, 1).flatten(0, 1)
        return state


PARTS: Mapping[str, type[Deployed]] = MappingProxyType(
    {
        'ConvStem': FusedConvStem,
        'Downsample': SplitDownsample,
        'PosMLPBlock': FusedPosMLPBlock,
    }
)
MARKS = ('.fc2.weight', 'stem.0.norm.weight')
STAGE = PosMLPStage


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in a PosMLP."""
    blocks = backbone.num_blocks
    lines = (
        f'the norms of {len(backbone.stem)} convolutions of the stem into them',
        f'the norms of {blocks} blocks into their first layers',
    )
    if backbone.grid_mode == 'resize':
        return lines
    return *lines, f'offsets, centres and spreads of {blocks} gates into kernels'
