"""Wave-MLP as the release computes it (arXiv:2111.12294), to measure ours against.

Operation by operation: six projections of one input are six convolutions, a map is unfolded into
waves by a cosine, a sine and a concatenation and mixed by a grouped convolution of two channels a
group, phases pass their batch norms, weights of the blend are pooled from the sum of the three
branches. The release infers with what it trains. Dense outputs are those of its dense mode, a norm
per level. Dropout and drop path, which the release sets to 0 or leaves out of inference, are left
out.

Tensors have the names and shapes of :class:`mmwave.models.WaveMLP`.

Shapes: N images, C channels, H x W positions of the map.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.models import WaveMLP
from mmwave.models.backbones.wavemlp import WaveMLPArch
from mmwave.models.layers import build_activation
from mmwave.structures import SizeConstraint

from ..equality import check_phase_mix
from .base import Peer

KERNEL_SIZE = 7
"""Positions that a wave is mixed over, along a row or a column."""


def _norm(name: str, channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels) if name == 'BN' else nn.GroupNorm(1, channels)


class ConvNorm(nn.Module):
    """A strided convolution, and a norm in some variants: (N, C_in, H, W) -> (N, C_out, H', W')."""

    def __init__(self, c_in: int, c_out: int, arch: WaveMLPArch, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, stride // 2)
        self.norm = _norm(arch.norm, c_out) if arch.stem_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Phase(nn.Module):
    """(N, C, H, W) -> phases of the same shape."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        if kind == 'dw':
            self.conv = nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False)
        else:
            self.conv = nn.Conv2d(channels, channels, 1)
        self.norm = nn.BatchNorm2d(channels)
        self.act = nn.ReLU()

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


class Mixer(nn.Module):
    """The release's PATM: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, phase: str, act_cfg: dict) -> None:
        super().__init__()
        self.amplitude_h = nn.Conv2d(channels, channels, 1, bias=False)
        self.amplitude_w = nn.Conv2d(channels, channels, 1, bias=False)
        self.channel = nn.Conv2d(channels, channels, 1, bias=False)
        self.phase_h = Phase(channels, phase)
        self.phase_w = Phase(channels, phase)
        self.kernel_h = nn.Parameter(torch.empty(channels, 2, 1, KERNEL_SIZE))
        self.kernel_w = nn.Parameter(torch.empty(channels, 2, KERNEL_SIZE, 1))
        self.reweight = MLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        groups = x.shape[1]
        phase_h, phase_w = self.phase_h(x), self.phase_w(x)
        waves_h = _unfolded(self.amplitude_h(x), phase_h)
        waves_w = _unfolded(self.amplitude_w(x), phase_w)
        h = F.conv2d(waves_h, self.kernel_h, padding=(0, KERNEL_SIZE // 2), groups=groups)
        w = F.conv2d(waves_w, self.kernel_w, padding=(KERNEL_SIZE // 2, 0), groups=groups)
        c = self.channel(x)
        pooled = F.adaptive_avg_pool2d(h + w + c, 1)
        scores = self.reweight(pooled).reshape(-1, groups, 3).permute(2, 0, 1)
        weights = scores.softmax(dim=0)[..., None, None]
        return self.proj(h * weights[0] + w * weights[1] + c * weights[2])


def _unfolded(amplitude: Tensor, phase: Tensor) -> Tensor:
    """All real parts, then all imaginary parts: (N, 2 C, H, W)."""
    return torch.cat([amplitude * phase.cos(), amplitude * phase.sin()], dim=1)


class Block(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(self, arch: WaveMLPArch, stage: int, act_cfg: dict) -> None:
        super().__init__()
        channels = arch.dims[stage]
        self.norm1 = _norm(arch.norm, channels)
        self.mixer = Mixer(channels, arch.phase, act_cfg)
        self.norm2 = _norm(arch.norm, channels)
        self.mlp = MLP(channels, arch.mlp_ratios[stage] * channels, channels, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Published(nn.Module):
    """The release's only form, with a copy of the weights of ``model``, our train form."""

    def __init__(self, model: WaveMLP) -> None:
        super().__init__()
        arch, stages = model.arch, range(model.num_stages)
        dims = arch.dims
        self.stem = ConvNorm(model.in_channels, dims[0], arch, 7, 4)
        self.downsamples = nn.ModuleList(
            ConvNorm(dims[i - 1], dims[i], arch, 3, 2) for i in stages[1:]
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(Block(arch, i, model.act_cfg) for _ in range(arch.depths[i])))
            for i in stages
        )
        self.out_norms = nn.ModuleDict(
            {str(i): _norm(arch.norm, dims[i]) for i in model.out_indices}
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
        backbone=WaveMLP,
        inference=Published,
        training=Published,
        layout='NHWC',
        sizes=lambda arch: SizeConstraint(),
        kernels=('float32', 'bfloat16'),
        check_ops=check_phase_mix,
        suites={
            'inference_224': ('t', 's', 'm'),
            'inference_512': ('t', 's', 'm'),
            'inference_800': ('t',),
            'contenders': ('t',),
            'train_224': ('t', 's'),
            'compiled': ('t',),
            'retinanet': ('wavemlp-s_retinanet_1x_coco',),
            'upernet': ('wavemlp-s_upernet_160k_ade20k-512x512',),
        },
    ),
)
