"""CycleMLP as the release computes it (arXiv:2107.10224), to measure ours against.

Operation by operation: maps are (N, H, W, C), views of the convolutions' outputs; a Cycle FC is
torchvision's deformable convolution on the permuted map, with one pair of constant offsets a
channel, expanded to every position; weights of the blend are the mean of the sum of the three
branches. The release infers with what it trains. Dense outputs are those of its dense mode, a norm
per level. Dropout and drop path are left out.

The deformable convolution has no bfloat16. There it is called in float32, inputs and result cast
around it, as a user of the release has to; everything else stays in bfloat16.

Tensors have the names of :class:`mmwave.models.CycleMLP`.

Shapes: N images, C channels, H x W positions of the map.
"""

import math

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from mmwave.models import CycleMLP
from mmwave.models.layers import build_activation
from mmwave.structures import SizeConstraint

from .base import Peer


class Embed(nn.Module):
    """A strided convolution: (N, H, W, C_in), or an image (N, C_in, H, W) -> (N, H', W', C_out)."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, image: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, stride // 2)
        self.image = image

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x if self.image else x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class CycleFC(nn.Module):
    """A 1 x 1 deformable convolution: (N, C, H, W) -> (N, C, H, W).

    Args:
        channels: C.
        kernel: (1, 3) to read along the width, (3, 1) along the height.
    """

    offset: Tensor

    def __init__(self, channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels))
        size = math.prod(kernel)
        offset = torch.zeros(1, 2 * channels, 1, 1)
        for channel in range(channels):
            axis = 1 if kernel[0] == 1 else 0  # pairs of (dy, dx)
            offset[0, 2 * channel + axis] = (channel + size // 2) % size - size // 2
        self.register_buffer('offset', offset, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        offset = self.offset.expand(len(x), -1, *x.shape[2:])
        given = x, offset, self.weight, self.bias
        if x.dtype != torch.bfloat16:
            return deform_conv2d(*given)
        return deform_conv2d(*(tensor.float() for tensor in given)).to(x.dtype)


class MLP(nn.Module):
    """Two linear layers: (..., C_in) -> (..., C_out)."""

    def __init__(self, c_in: int, hidden: int, c_out: int, act_cfg: dict) -> None:
        super().__init__()
        self.fc1 = nn.Linear(c_in, hidden)
        self.act = build_activation(act_cfg)
        self.fc2 = nn.Linear(hidden, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Mixer(nn.Module):
    """The release's token mixer: (N, H, W, C) -> (N, H, W, C)."""

    def __init__(self, channels: int, act_cfg: dict) -> None:
        super().__init__()
        self.width = CycleFC(channels, (1, 3))
        self.height = CycleFC(channels, (3, 1))
        self.channel = nn.Linear(channels, channels, bias=False)
        self.reweight = MLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, _, _, channels = x.shape
        first = x.permute(0, 3, 1, 2)
        w = self.width(first).permute(0, 2, 3, 1)
        h = self.height(first).permute(0, 2, 3, 1)
        c = self.channel(x)
        pooled = (w + h + c).permute(0, 3, 1, 2).flatten(2).mean(dim=2)
        scores = self.reweight(pooled).reshape(n, channels, 3).permute(2, 0, 1)
        weights = scores.softmax(dim=0)[:, :, None, None]
        return self.proj(w * weights[0] + h * weights[1] + c * weights[2])


class Block(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(self, channels: int, mlp_ratio: int, act_cfg: dict) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.mixer = Mixer(channels, act_cfg)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, mlp_ratio * channels, channels, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Published(nn.Module):
    """The release's only form, with a copy of the weights of ``model``, our train form."""

    def __init__(self, model: CycleMLP) -> None:
        super().__init__()
        arch, stages = model.arch, range(model.num_stages)
        dims, ratios = arch.dims, arch.mlp_ratios
        self.stem = Embed(model.in_channels, dims[0], 7, 4, image=True)
        self.downsamples = nn.ModuleList(
            Embed(dims[i - 1], dims[i], 3, 2, image=False) for i in stages[1:]
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(Block(dims[i], ratios[i], model.act_cfg) for _ in range(arch.depths[i]))
            )
            for i in stages
        )
        self.out_norms = nn.ModuleDict({str(i): nn.LayerNorm(dims[i]) for i in model.out_indices})
        self.train(model.training).to(next(model.parameters()))
        shapes = {name: tensor.shape for name, tensor in self.state_dict().items()}
        state = model.state_dict()
        self.load_state_dict({n: t.reshape(shapes.get(n, t.shape)) for n, t in state.items()})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, C, H, W) of any size to the output levels."""
        outputs = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = stage(self.downsamples[i - 1](x) if i else x)
            if str(i) in self.out_norms:
                outputs.append(self.out_norms[str(i)](x).permute(0, 3, 1, 2).contiguous())
        return tuple(outputs)


PEERS = (
    Peer(
        backbone=CycleMLP,
        inference=Published,
        training=Published,
        layout='NHWC',
        sizes=lambda arch: SizeConstraint(),
        suites={
            'inference_224': ('b1', 'b2'),
            'inference_512': ('b1',),
            'train_224': ('b1',),
            'compiled': ('b1',),
        },
    ),
)
