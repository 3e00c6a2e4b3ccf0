"""ActiveMLP as the release computes it (arXiv:2203.06108), to measure ours against.

Operation by operation: maps are (N, H, W, C), views of the convolutions' outputs; offsets are
repeated for every channel that shares one and written beside zeros into pairs; sampling and its
projection are torchvision's deformable convolution on the permuted map; weights of the blend are
the mean of the sum of the three branches. The release infers with what it trains. Dense outputs are
those of its dense mode, a norm per level. Dropout and drop path are left out.

The deformable convolution has no bfloat16 on a CPU. There it is called in float32, inputs and
result cast around it, as a user of the release has to; everything else stays in bfloat16.

Tensors have the names of :class:`mmwave.models.ActiveMLP`.

Shapes: N images, C channels, H x W positions of the map, G = C / share groups of channels that
share an offset.
"""

import torch
from torch import Tensor, nn
from torchvision.ops import deform_conv2d

from mmwave.models import ActiveMLP
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


class Position(nn.Conv2d):
    """The depthwise convolution in front of predicted offsets: (N, H, W, C) -> (N, H, W, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        return (x + super().forward(x)).permute(0, 2, 3, 1)


class Sampled(nn.Module):
    """A deformable convolution along one axis: (N, C, H, W) and offsets likewise -> (N, C, H, W).

    Args:
        channels: C.
        axis: 0 for offsets along the height, 1 along the width.
    """

    def __init__(self, channels: int, axis: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 1, 1))
        self.bias = nn.Parameter(torch.empty(channels))
        self.axis = axis

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        pairs = offsets.new_zeros(n, 2 * channels, height, width)  # of (dy, dx)
        pairs[:, self.axis :: 2] += offsets
        given = x, pairs, self.weight, self.bias
        if x.dtype != torch.bfloat16:
            return deform_conv2d(*given)
        return deform_conv2d(*(tensor.float() for tensor in given)).to(x.dtype)


class Offsets(nn.Module):
    """Predict offsets: (N, H, W, C) -> (N, 2 * C, H, W)."""

    def __init__(self, channels: int, share: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.proj = nn.Linear(channels, 2 * channels // share)
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.norm(x)).permute(0, 3, 1, 2).repeat_interleave(self.share, dim=1)


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
    """The release's token mixer: (N, H, W, C) and (N, 2 * C, H, W) offsets -> (N, H, W, C)."""

    def __init__(self, channels: int, act_cfg: dict) -> None:
        super().__init__()
        self.width = Sampled(channels, 1)
        self.height = Sampled(channels, 0)
        self.channel = nn.Linear(channels, channels, bias=False)
        self.reweight = MLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        n, _, _, channels = x.shape
        first = x.permute(0, 3, 1, 2)
        w = self.width(first, offsets[:, :channels]).permute(0, 2, 3, 1)
        h = self.height(first, offsets[:, channels:]).permute(0, 2, 3, 1)
        c = self.channel(x)
        pooled = (w + h + c).permute(0, 3, 1, 2).flatten(2).mean(dim=2)
        scores = self.reweight(pooled).reshape(n, channels, 3).permute(2, 0, 1)
        weights = scores.softmax(dim=0)[:, :, None, None]
        return self.proj(w * weights[0] + h * weights[1] + c * weights[2])


class Block(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(
        self, channels: int, mlp_ratio: int, share: int, is_first: bool, act_cfg: dict
    ) -> None:
        super().__init__()
        self.position = Position(channels) if is_first else None
        self.offsets = Offsets(channels, share) if share else None
        self.norm1 = nn.LayerNorm(channels)
        self.mixer = Mixer(channels, act_cfg)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, mlp_ratio * channels, channels, act_cfg)

    def forward(
        self, x: Tensor, offsets: Tensor | None, position: nn.Module
    ) -> tuple[Tensor, Tensor | None]:
        if self.offsets is not None:
            x = position(x)
            offsets = self.offsets(x)
        x = x + self.mixer(self.norm1(x), offsets)
        return x + self.mlp(self.norm2(x)), offsets


class Stage(nn.Sequential):
    """Blocks that pass on offsets: (N, H, W, C) -> (N, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        offsets = None
        for block in self:
            x, offsets = block(x, offsets, self[0].position)
        return x


class Published(nn.Module):
    """The release's only form, with a copy of the weights of ``model``, our train form."""

    def __init__(self, model: ActiveMLP) -> None:
        super().__init__()
        arch, stages = model.arch, range(model.num_stages)
        dims = arch.dims
        self.stem = Embed(model.in_channels, dims[0], 7, 4, image=True)
        self.downsamples = nn.ModuleList(
            Embed(dims[i - 1], dims[i], 3, 2, image=False) for i in stages[1:]
        )

        def block(i: int, j: int) -> Block:
            share = arch.shares[i] if arch.predicts_offsets(i, j) else 0
            return Block(dims[i], arch.mlp_ratios[i], share, j == 0, model.act_cfg)

        self.stages = nn.ModuleList(
            Stage(*(block(i, j) for j in range(arch.depths[i]))) for i in stages
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
                outputs.append(self.out_norms[str(i)](x).permute(0, 3, 1, 2))
        return tuple(outputs)


PEERS = (
    Peer(
        backbone=ActiveMLP,
        inference=Published,
        training=Published,
        layout='NHWC',
        sizes=lambda arch: SizeConstraint(),
        kernels=('float32', 'bfloat16'),
        suites={
            'inference_224': ('xt',),
            'inference_512': ('xt',),
            'train_224': ('xt',),
            'compiled': ('xt',),
        },
    ),
)
