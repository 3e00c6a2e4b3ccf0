"""AS-MLP as the release computes it (arXiv:2107.08391), to measure ours against.

Operation by operation, as the published segmentation and detection code does, whose shift is
torch's (the classifier's runs on CUDA alone): a map is padded on all sides, cut into groups of
channels, each group is rolled along an axis, all are concatenated and the padding is cut off, once
for each axis; every mixing of channels is a 1 x 1 convolution and every norm a group norm. The
release infers with what it trains. Drop path is left out.

Tensors have the names and shapes of :class:`mmwave.models.ASMLP`.

Shapes: N images, C channels, H x W positions of the map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.models import ASMLP
from mmwave.models.backbones.asmlp import ASMLPArch
from mmwave.models.layers import build_activation
from mmwave.structures import SizeConstraint

from .base import Peer


class Embed(nn.Module):
    """Patches of 4 x 4 pixels and a norm: (N, C_in, H, W) -> (N, C, H', W')."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 4, 4)
        self.norm = nn.GroupNorm(1, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(_padded(x, 4)))


def _padded(x: Tensor, step: int) -> Tensor:
    """Pad below and on the right to multiples of ``step``, where there is need to."""
    below, right = -x.shape[2] % step, -x.shape[3] % step
    return F.pad(x, (0, right, 0, below)) if below or right else x


class Merging(nn.Module):
    """Squares of 2 x 2 positions: (N, C_in, H, W) -> (N, C, H', W')."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 4 * c_in)
        self.reduction = nn.Conv2d(4 * c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = _padded(x, 2)
        corners = [x[:, :, row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.reduction(self.norm(torch.cat(corners, dim=1)))


class Mixer(nn.Module):
    """The release's axial shift: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, shift_size: int, act_cfg: dict) -> None:
        super().__init__()
        self.shift_size = shift_size
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.norm1 = nn.GroupNorm(1, channels)
        self.conv_w = nn.Conv2d(channels, channels, 1)
        self.conv_h = nn.Conv2d(channels, channels, 1)
        self.norm2 = nn.GroupNorm(1, channels)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.act = build_activation(act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.conv1(x)))
        reach = self.shift_size // 2
        groups = F.pad(x, (reach,) * 4).chunk(self.shift_size, dim=1)

        def shifted(dim: int) -> Tensor:
            rolled = [group.roll(k - reach, dim) for k, group in enumerate(groups)]
            joined = torch.cat(rolled, dim=1).narrow(2, reach, x.shape[2])
            return joined.narrow(3, reach, x.shape[3])

        across, down = self.act(self.conv_w(shifted(3))), self.act(self.conv_h(shifted(2)))
        return self.conv2(self.norm2(across + down))


class MLP(nn.Module):
    """Two 1 x 1 convolutions: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, hidden: int, act_cfg: dict) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.act = build_activation(act_cfg)
        self.fc2 = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(self, arch: ASMLPArch, stage: int, shift_size: int, act_cfg: dict) -> None:
        super().__init__()
        channels = arch.dims[stage]
        self.norm1 = nn.GroupNorm(1, channels)
        self.mixer = Mixer(channels, shift_size, act_cfg)
        self.norm2 = nn.GroupNorm(1, channels)
        self.mlp = MLP(channels, arch.mlp_ratio * channels, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Published(nn.Module):
    """The release's only form, with a copy of the weights of ``model``, our train form."""

    def __init__(self, model: ASMLP) -> None:
        super().__init__()
        arch, dims, stages = model.arch, model.arch.dims, range(model.num_stages)

        def block(stage: int) -> Block:
            return Block(arch, stage, model.shift_size, model.act_cfg)

        self.stem = Embed(model.in_channels, dims[0])
        self.downsamples = nn.ModuleList(Merging(dims[i - 1], dims[i]) for i in stages[1:])
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(i) for _ in range(arch.depths[i]))) for i in stages
        )
        self.out_norms = nn.ModuleDict(
            {str(i): nn.GroupNorm(1, dims[i]) for i in model.out_indices}
        )
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
        backbone=ASMLP,
        inference=Published,
        training=Published,
        layout='NHWC',
        sizes=lambda arch: SizeConstraint(),
        suites={
            'inference_224': ('t',),
            'inference_512': ('t',),
            'train_224': ('t',),
            'compiled': ('t',),
        },
    ),
)
