"""Hire-MLP in deploy form: all norms folded, channels last, regions ordered by row, then channel.

A block maps (N, H, W, C) to (N, H, W, C). With channel c of row r of a region at r * C + c, the
regions of columns are a view of a map with channels last, where it is neither rolled nor continued,
and all others are copied in runs of C values. The norm in front of the mixer folds into all that it
feeds: rolling a map and continuing it as a ring move positions and leave channels alone.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_after, fuse_norm_before
from mmwave.models.layers import affine_of
from mmwave.models.layers.deployed import ConstantEmbed, ConstantLinear, ConstantMLP, add_blend
from mmwave.models.layers.inplace import may_overwrite
from mmwave.ops.graphs import is_dynamic
from mmwave.ops.mean import mean_over
from mmwave.ops.regions import map_of_rows, rows_of_regions

from . import ChannelsLastStage, Deployed


class FusedRegionMLP(nn.Module):
    """Mix the columns of regions: (N, H, W, C) -> (N, H, W, C).

    A map is rolled, continued and cut into regions by one copy, and put together by another.

    Args:
        mlp: a ``RegionMLP``.
    """

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.axis, self.region_size, self.shift = mlp.axis, mlp.region_size, mlp.shift
        self.fc1 = ConstantLinear(mlp.fc1.in_channels, mlp.fc1.out_channels)
        self.fc2 = ConstantLinear(mlp.fc2.in_channels, mlp.fc2.out_channels)

    def forward(self, x: Tensor) -> Tensor:
        _, height, width, channels = x.shape
        in_parts = is_dynamic(height, width)
        if in_parts:
            parts = rows_of_regions(x, self.axis, self.region_size, self.shift)
            hidden = self.fc1(torch.cat(parts, 3))
        else:
            hidden = self.fc1(self._regions(x, height, width))
        hidden = hidden.relu_() if may_overwrite(hidden) else hidden.relu()
        positions = self.fc2(hidden).unflatten(3, (-1, channels))
        if in_parts:
            return map_of_rows(positions.unbind(3), self.axis, (height, width), self.shift)
        return self._map(positions, height, width)

    def _regions(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return the regions of a map, (N, H, W / p, p * C)."""
        p = self.region_size
        if self.shift or width % p:
            x = x.index_select(2, _in_regions(width, p, self.shift, x.device))
        return x.unflatten(2, (-1, p)).flatten(3)

    def _map(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return the map of positions (N, H, W / p, p, C)."""
        p, x = self.region_size, x.flatten(2, 3)
        if self.shift or width % p:
            x = x.index_select(2, _back(width, self.shift, x.device))
        return x


class FusedRows(FusedRegionMLP):
    """Mix the rows of regions, likewise."""

    def _regions(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return the regions of a map, (N, H / p, W, p * C)."""
        p = self.region_size
        rows = _in_regions(height, p, self.shift, x.device).view(-1, 1, p)
        columns = torch.arange(width, device=x.device).view(-1, 1)
        x = x.flatten(1, 2).index_select(1, (rows * width + columns).flatten())
        return x.view(len(x), len(rows), width, p * x.shape[2])

    def _map(self, x: Tensor, height: int, width: int) -> Tensor:
        """Return the map of positions (N, H / p, W, p, C)."""
        p = self.region_size
        rows = _back(height, self.shift, x.device).view(-1, 1)
        columns = torch.arange(width, device=x.device)
        index = (rows // p * width + columns) * p + rows % p
        return x.flatten(1, 3).index_select(1, index.flatten()).unflatten(1, (height, width))


def _in_regions(size: int, region_size: int, shift: int, device: torch.device) -> Tensor:
    """Return which row of a map each row of its regions is."""
    rolled = torch.arange(-(-size // region_size) * region_size, device=device) % size
    return (rolled - shift) % size


def _back(size: int, shift: int, device: torch.device) -> Tensor:
    """Return which row of the regions each row of a map is."""
    return (torch.arange(size, device=device) + shift) % size


class FusedHireMixer(nn.Module):
    """The mixer, shortcut included: (N, H, W, C) -> (N, H, W, C).

    Args:
        mixer: a ``HireMixer``.
    """

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        channels = mixer.proj.in_channels
        self.rows, self.columns = FusedRows(mixer.rows), FusedRegionMLP(mixer.columns)
        self.channel = ConstantLinear(channels, channels)
        self.reweight = ConstantMLP.like(mixer.reweight)
        self.proj = ConstantLinear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.channel(x), self.rows(x), self.columns(x)]
        pooled = sum(mean_over(map_, 1, 2) for map_ in maps)
        weights = self.reweight(pooled).unflatten(1, (3, 1, 1, -1)).softmax(dim=1)
        rows, columns, channel = weights.unbind(dim=1)
        return add_blend(x, maps, [channel, rows, columns], self.proj)


class FusedHireBlock(nn.Module):
    """A block whose norms are folded: (N, H, W, C) -> (N, H, W, C).

    Args:
        block: a ``HireBlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.mixer = FusedHireMixer(block.mixer)
        self.mlp = ConstantMLP.like(block.mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(x)
        return self.mlp.add_to(x, x)

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``HireBlock`` in deploy form."""
        mixer = block.mixer
        before = affine_of(block.norm1)
        state = {
            f'mixer.{name}.{key}': tensor
            for name in ('rows', 'columns')
            for key, tensor in _folded_regions(getattr(mixer, name), *before).items()
        }
        state['mixer.channel.weight'], state['mixer.channel.bias'] = fuse_norm_before(
            mixer.channel.weight.flatten(1), mixer.channel.bias, *before
        )
        state['mixer.proj.weight'] = mixer.proj.weight.flatten(1)
        state['mixer.proj.bias'] = mixer.proj.bias
        reweight = ConstantMLP.fold_reweight(mixer.reweight)
        state |= {f'mixer.reweight.{k}': v for k, v in reweight.items()}
        mlp = ConstantMLP.fold(block.mlp, block.norm2)
        return state | {f'mlp.{k}': v for k, v in mlp.items()}


def _folded_regions(mlp: nn.Module, scale: Tensor, shift: Tensor) -> dict[str, Tensor]:
    """The tensors of a ``RegionMLP`` in deploy form, behind a norm of this scale and shift."""
    size = mlp.region_size
    weight, bias = fuse_norm_after(mlp.fc1.weight.flatten(1), None, *affine_of(mlp.norm))
    of_rows = [scale.repeat(size), shift.repeat(size)]
    weight = weight.unflatten(1, (-1, size)).transpose(1, 2).flatten(1)
    weight, bias = fuse_norm_before(weight, bias, *of_rows)
    second = mlp.fc2.weight.flatten(1)
    return {
        'fc1.weight': weight,
        'fc1.bias': bias,
        'fc2.weight': second.unflatten(0, (-1, size)).transpose(0, 1).flatten(0, 1),
        'fc2.bias': mlp.fc2.bias.unflatten(0, (-1, size)).transpose(0, 1).flatten(),
    }


PARTS: Mapping[str, type[Deployed]] = MappingProxyType(
    {'ConvEmbed': ConstantEmbed, 'HireBlock': FusedHireBlock}
)
MARKS = ('.mixer.rows.fc1.weight', '.mixer.rows.norm.weight')
STAGE = ChannelsLastStage


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in a Hire-MLP."""
    blocks = backbone.num_blocks
    return (
        f'the norms of {backbone.num_stages} embeddings into their convolutions',
        f'the norms in front of and inside {blocks} token mixers into their layers',
        f'the norms in front of {blocks} channel MLPs into their first layers',
    )
