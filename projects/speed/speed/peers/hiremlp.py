"""Hire-MLP as the release computes it (arXiv:2108.13341), to measure ours against.

Operation by operation: a map is rolled, padded as a ring, its regions are put into channels by a
reshape, a permute and a copy, mixed by two convolutions with a batch norm and a ReLU between, and
all of it undone, first for rows, then for columns; weights of the blend are pooled from the sum of
the three branches. The release infers with what it trains. Dense outputs are those of its dense
mode, a norm per level. Drop path is left out.

Tensors have the names and shapes of :class:`mmwave.models.HireMLP`.

Shapes: N images, C channels, H x W positions of the map, p rows or columns of a region.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.models import HireMLP
from mmwave.models.layers import build_activation
from mmwave.structures import SizeConstraint

from .base import Peer


class ConvNormReLU(nn.Module):
    """A strided convolution, a norm, a ReLU: (N, C_in, H, W) -> (N, C_out, H', W')."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, stride // 2)
        self.norm = nn.BatchNorm2d(c_out)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class MLP(nn.Module):
    """Two 1 x 1 convolutions: (N, C_in, H, W) -> (N, C_out, H, W)."""

    def __init__(self, c_in: int, hidden: int, c_out: int, act_cfg: dict) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(c_in, hidden, 1)
        self.act = build_activation(act_cfg)
        self.fc2 = nn.Conv2d(hidden, c_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Regions(nn.Module):
    """Mix the rows or columns of regions: (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        axis: 2 for rows, 3 for columns.
        size: p.
        shift: positions to roll by, and back.
    """

    def __init__(self, channels: int, axis: int, size: int, shift: int) -> None:
        super().__init__()
        self.axis, self.size, self.shift = axis, size, shift
        self.fc1 = nn.Conv2d(channels * size, channels // 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels // 2)
        self.act = nn.ReLU()
        self.fc2 = nn.Conv2d(channels // 2, channels * size, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        p, rows = self.size, self.axis == 2
        if self.shift:
            x = x.roll(self.shift, self.axis)
        more = -x.shape[self.axis] % p
        x = F.pad(x, (0, 0, 0, more) if rows else (0, more, 0, 0), mode='circular')
        high, wide = x.shape[2:]
        if rows:
            x = x.reshape(n, c, high // p, p, wide).permute(0, 1, 3, 2, 4)
            x = x.reshape(n, c * p, high // p, wide)
        else:
            x = x.reshape(n, c, high, wide // p, p).permute(0, 1, 4, 2, 3)
            x = x.reshape(n, c * p, high, wide // p)
        x = self.fc2(self.act(self.norm(self.fc1(x))))
        if rows:
            x = x.reshape(n, c, p, high // p, wide).permute(0, 1, 3, 2, 4)
        else:
            x = x.reshape(n, c, p, high, wide // p).permute(0, 1, 3, 4, 2)
        x = x.reshape(n, c, high, wide)[:, :, :h, :w]
        return x.roll(-self.shift, self.axis) if self.shift else x


class Mixer(nn.Module):
    """The release's Hire module: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, size: int, shift: int, act_cfg: dict) -> None:
        super().__init__()
        self.rows = Regions(channels, 2, size, shift)
        self.columns = Regions(channels, 3, size, shift)
        self.channel = nn.Conv2d(channels, channels, 1)
        self.reweight = MLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, w, c = self.rows(x), self.columns(x), self.channel(x)
        pooled = F.adaptive_avg_pool2d(h + w + c, 1)
        scores = self.reweight(pooled).reshape(-1, x.shape[1], 3).permute(2, 0, 1)
        weights = scores.softmax(dim=0)[..., None, None]
        return self.proj(h * weights[0] + w * weights[1] + c * weights[2])


class Block(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(self, channels: int, ratio: int, size: int, shift: int, act_cfg: dict) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(channels)
        self.mixer = Mixer(channels, size, shift, act_cfg)
        self.norm2 = nn.BatchNorm2d(channels)
        self.mlp = MLP(channels, ratio * channels, channels, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Published(nn.Module):
    """The release's only form, with a copy of the weights of ``model``, our train form."""

    def __init__(self, model: HireMLP) -> None:
        super().__init__()
        arch, stages = model.arch, range(model.num_stages)
        dims = arch.dims
        sign = 1 if model.shift_direction == 'forward' else -1
        self.stem = ConvNormReLU(model.in_channels, dims[0], 7, 4)
        self.downsamples = nn.ModuleList(
            ConvNormReLU(dims[i - 1], dims[i], 3, 2) for i in stages[1:]
        )

        def block(i: int, number: int) -> Block:
            shift = sign * arch.shift(i, number)
            ratio, size = arch.mlp_ratios[i], arch.region_sizes[i]
            return Block(dims[i], ratio, size, shift, model.act_cfg)

        self.stages = nn.ModuleList(
            nn.Sequential(*(block(i, j) for j in range(arch.depths[i]))) for i in stages
        )
        self.out_norms = nn.ModuleDict({str(i): nn.BatchNorm2d(dims[i]) for i in model.out_indices})
        self.train(model.training).to(next(model.parameters()))
        self.load_state_dict(model.state_dict())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, C, H, W) of any size to the output levels."""
        outputs = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = stage(self.downsamples[i - 1](x) if i else x)
            if str(i) in self.out_norms:
                outputs.append(self.out_norms[str(i)](x))
        return tuple(outputs)


PEERS = (
    Peer(
        backbone=HireMLP,
        inference=Published,
        training=Published,
        layout='NHWC',
        sizes=lambda arch: SizeConstraint(),
        suites={
            'inference_224': ('t', 's'),
            'inference_512': ('t', 's'),
            'train_224': ('t', 's'),
            'compiled': ('t',),
            'upernet': ('hiremlp-s_upernet_160k_ade20k-512x512',),
        },
    ),
)
