"""RepMLPNet as the release computes it (arXiv:2112.11081), to measure ours against.

Operation by operation: each block cuts its maps into windows by a permute and joins them again, the
channel perceptron is a grouped 1 x 1 convolution on maps of one position with all positions of a
window as channels, every norm of a block stays a module, and the FFN is convolutions each with its
norm. Windows and channel groups come back in the order they were cut in; the release mixes them up
where a map has several windows. One more difference favours the release: both perceptrons of a
block read one copy of the windows.

Tensors have the names of :class:`mmwave.models.RepMLPNet` and the release's shapes.

Shapes: N images, C channels, S share-sets, windows of h x w positions.
"""

import math

import torch
from torch import Tensor, nn

from mmwave.deploy.fuse import conv_to_fc, fuse_norm_after, norm_affine
from mmwave.models import RepMLPNet
from mmwave.models.backbones.repmlpnet import RepMLPNetArch
from mmwave.models.layers import build_activation

from .base import Peer

PATCH, STEP = 4, 2
"""Kernel and stride in front of the first stage, and of every further one."""


class ConvNorm(nn.Module):
    """A convolution without bias, and its norm: (N, C_in, H, W) -> (N, C_out, H', W')."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__()
        # Patches do not overlap; kernels that go position by position keep the map's size.
        padding = kernel // 2 if stride == 1 else 0
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class GlobalPerceptron(nn.Module):
    """Weights per channel in 0 .. 1 from the whole map: (N, C, H, W) -> (N, C, 1, 1)."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = nn.functional.adaptive_avg_pool2d(x, (1, 1))
        return torch.sigmoid(self.fc2(torch.relu(self.fc1(pooled))))


class ChannelPerceptron(nn.Conv2d):
    """One matrix per share-set over a window's positions: (M, S, h, w) -> (M, S, h, w)."""

    def __init__(self, sets: int, positions: int, *, deploy: bool) -> None:
        features = sets * positions
        super().__init__(features, features, 1, groups=sets, bias=deploy)
        self.norm = nn.Identity() if deploy else nn.BatchNorm2d(sets)

    def forward(self, maps: Tensor) -> Tensor:
        mixed = super().forward(maps.reshape(len(maps), -1, 1, 1))
        return self.norm(mixed.reshape(maps.shape))


class FFN(nn.Module):
    """Mix the channels of every position: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int, ratio: int, act_cfg: dict) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, ratio * channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(ratio * channels)
        self.act = build_activation(act_cfg)
        self.fc2 = nn.Conv2d(ratio * channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.fc2(self.act(self.norm1(self.fc1(x)))))


class Block(nn.Module):
    """The release's RepMLPBlock and FFN, each behind a norm and beside a shortcut."""

    def __init__(self, arch: RepMLPNetArch, stage: int, act_cfg: dict, *, deploy: bool) -> None:
        super().__init__()
        channels, self.sets = arch.dims[stage], arch.share_sets[stage]
        self.window = _windows(arch)[stage]
        self.norm1 = nn.BatchNorm2d(channels)
        self.global_perceptron = GlobalPerceptron(channels, arch.reduction)
        self.channel_perceptron = ChannelPerceptron(
            self.sets, math.prod(self.window), deploy=deploy
        )
        kernels = () if deploy else arch.kernels
        self.local_perceptron = nn.ModuleDict(
            {str(k): ConvNorm(self.sets, self.sets, k, groups=self.sets) for k in kernels}
        )
        self.norm2 = nn.BatchNorm2d(channels)
        self.ffn = FFN(channels, arch.mlp_ratio, act_cfg)

    def mix(self, x: Tensor) -> Tensor:
        (n, c, height, width), (h, w) = x.shape, self.window
        rows, columns = height // h, width // w
        weights = self.global_perceptron(x)
        windows = x.reshape(n, c, rows, h, columns, w).permute(0, 2, 4, 1, 3, 5)
        maps = windows.reshape(-1, self.sets, h, w)
        mixed = self.channel_perceptron(maps)
        for branch in self.local_perceptron.values():
            mixed = mixed + branch(maps)
        windows = mixed.reshape(n, rows, columns, c, h, w)
        return windows.permute(0, 3, 1, 4, 2, 5).reshape(x.shape) * weights

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.norm1(x))
        return x + self.ffn(self.norm2(x))


class _Published(nn.Module):
    def __init__(self, model: RepMLPNet, *, deploy: bool) -> None:
        super().__init__()
        arch, stages = model.arch, range(model.num_stages)
        self.sizes = arch.filled_sizes()
        self.stem = ConvNorm(model.in_channels, arch.dims[0], PATCH, stride=PATCH)
        self.downsamples = nn.ModuleList(
            ConvNorm(arch.dims[i - 1], arch.dims[i], STEP, stride=STEP) for i in stages[1:]
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(Block(arch, i, model.act_cfg, deploy=deploy) for _ in range(arch.depths[i]))
            )
            for i in stages
        )
        self.out_norms = nn.ModuleDict(
            {str(i): nn.BatchNorm2d(arch.dims[i]) for i in model.out_indices}
        )
        self.train(model.training).to(next(model.parameters()))

    def blocks(self) -> dict[str, Block]:
        return {name: m for name, m in self.named_modules() if isinstance(m, Block)}

    def hold(self, state: dict[str, Tensor]) -> None:
        """Load a state dict of the same names; shapes may differ by axes of length one."""
        shapes = {name: tensor.shape for name, tensor in self.state_dict().items()}
        self.load_state_dict({n: t.reshape(shapes.get(n, t.shape)) for n, t in state.items()})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, 3, H, W), of multiples of the window in pixels, to the output levels."""
        self.sizes.check(x.shape[2], x.shape[3])
        outputs = []
        for i, stage in enumerate(self.stages):
            x = stage(torch.relu(self.downsamples[i - 1](x) if i else self.stem(x)))
            if str(i) in self.out_norms:
                outputs.append(self.out_norms[str(i)](x))
        return tuple(outputs)


class PublishedTrain(_Published):
    """The release's train form, with a copy of the weights of ``model``, our train form."""

    def __init__(self, model: RepMLPNet) -> None:
        super().__init__(model, deploy=False)
        self.hold(model.state_dict())


class PublishedDeploy(_Published):
    """The release's deploy form, with the weights of ``model``, our train form.

    The norm and the local convolutions of every channel perceptron are merged into its matrices;
    no other norm is folded away.
    """

    def __init__(self, model: RepMLPNet) -> None:
        super().__init__(model, deploy=True)
        state = model.state_dict()
        for name, block in PublishedTrain(model).blocks().items():
            parts = (f'{name}.local_perceptron.', f'{name}.channel_perceptron.')
            state = {key: tensor for key, tensor in state.items() if not key.startswith(parts)}
            weight, bias = merged(block)
            state[f'{name}.channel_perceptron.weight'] = weight
            state[f'{name}.channel_perceptron.bias'] = bias
        self.hold(state)


def merged(block: Block) -> tuple[Tensor, Tensor]:
    """Weight (S * P, P, 1, 1) and bias (S * P,) of a block's perceptrons but the global one."""
    positions = math.prod(block.window)
    perceptron = block.channel_perceptron
    matrices = perceptron.weight.detach().double().reshape(-1, positions, positions)
    weight, bias = fuse_norm_after(matrices, None, *_affine(perceptron.norm))
    for branch in block.local_perceptron.values():
        assert isinstance(branch, ConvNorm)
        kernel = branch.conv.weight.detach().double()
        kernel, offset = fuse_norm_after(kernel, None, *_affine(branch.norm))
        weight, bias = weight + conv_to_fc(kernel, block.window), bias + offset
    return weight.reshape(-1, positions, 1, 1), bias.repeat_interleave(positions)


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    assert isinstance(norm, nn.BatchNorm2d)
    state = norm.double().state_dict()
    return norm_affine(
        state['weight'], state['bias'], state['running_mean'], state['running_var'], norm.eps
    )


def _windows(arch: RepMLPNetArch) -> list[tuple[int, int]]:
    # The arch has replaced the numbers that stand for squares.
    return [w for w in arch.windows if not isinstance(w, int)]


PEERS = (
    Peer(
        backbone=RepMLPNet,
        inference=PublishedDeploy,
        training=PublishedTrain,
        sizes=RepMLPNetArch.filled_sizes,
        suites={
            'inference_224': ('t224', 'b224'),
            'inference_512': ('t256',),
            'train_224': ('t224',),
        },
    ),
)
