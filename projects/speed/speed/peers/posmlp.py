"""PosMLP as the release computes it (arXiv:2207.07284), to measure ours against.

Operation by operation: every block owns a table of all offsets of its window and of their products,
and computes its kernels of it in every forward pass; the gate mixes windows by a contraction over
their positions with the group last. Maps are cut into windows in front of a stage's blocks and
joined behind them: the least that the release can do. It infers with what it trains. Dropout and
drop path are left out.

Tensors have the names and shapes of :class:`mmwave.models.PosMLP`.

Shapes: N images, C channels, H x W positions of the map, M windows of h x w and P = h * w, S
groups of V channels.
"""

import torch
from torch import Tensor, nn

from mmwave.models import PosMLP
from mmwave.models.backbones.posmlp import EPS, PosMLPArch
from mmwave.models.layers import build_activation

from .base import last_level


class ConvNorm(nn.Module):
    """A convolution, its norm, an activation: (N, C_in, H, W) -> (N, C_out, H', W')."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, act: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2)
        self.norm = nn.BatchNorm2d(c_out, eps=EPS)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class Downsample(nn.Module):
    """A depthwise convolution of stride 2 and a norm: (N, C, H, W) -> (N, C', H / 2, W / 2)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, 2, 1, groups=c_in)
        self.norm = nn.LayerNorm(c_out, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Gate(nn.Module):
    """The release's positional spatial gating unit: (M, P, 2 C) -> (M, P, C)."""

    table: Tensor

    def __init__(self, window: tuple[int, int], groups: int) -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.empty(groups, 2))
        self.spreads = nn.Parameter(torch.empty(groups, 2, 2))
        self.bias = nn.Parameter(torch.empty(1, window[0] * window[1]))
        self.register_buffer('table', offsets(window), persistent=False)

    def kernel(self) -> Tensor:
        """(P, P, S): row, column, group; its rows sum to one."""
        inverse = torch.einsum('sij,skj->sik', self.spreads, self.spreads)
        a, b, c = inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]
        x, y = self.centers.unbind(dim=1)
        # What a quadratic form has without any offset, the softmax does not see.
        terms = [-2 * (a * x + b * y), -2 * (c * y + b * x), a, c, 2 * b]
        forms = torch.einsum('pqd,sd->pqs', self.table, torch.stack(terms, dim=1) / -2)
        return forms.softmax(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        mixed, gated = x.chunk(2, dim=2)
        kernel = self.kernel()
        grouped = mixed.reshape(*mixed.shape[:2], -1, kernel.shape[2])
        mixed = torch.einsum('mqvs,pqs->mpvs', grouped, kernel).flatten(2)
        return (mixed + self.bias[..., None]) * gated


def offsets(window: tuple[int, int]) -> Tensor:
    """The table, (P, P, 5): columns to the right, rows upwards, their squares, their product."""
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in window), indexing='ij')
    right = columns.flatten() - columns.flatten()[:, None]
    up = rows.flatten()[:, None] - rows.flatten()
    return torch.stack([right, up, right**2, up**2, right * up], dim=2).float()


class Block(nn.Module):
    """A gated channel MLP behind a norm and beside a shortcut: (M, P, C) -> (M, P, C)."""

    def __init__(self, arch: PosMLPArch, stage: int, act_cfg: dict) -> None:
        super().__init__()
        channels = arch.dims[stage]
        hidden = channels * arch.mlp_ratios[stage]
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.fc1 = nn.Linear(channels, hidden)
        self.act = build_activation(act_cfg)
        self.gate = Gate(_windows(arch)[stage], arch.groups[stage])
        self.fc2 = nn.Linear(hidden // 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(self.gate(self.act(self.fc1(self.norm(x)))))


class Stage(nn.ModuleList):
    """Blocks on the windows of a map: (N, C, H, W) -> (N, H, W, C)."""

    def __init__(self, arch: PosMLPArch, stage: int, act_cfg: dict) -> None:
        super().__init__(Block(arch, stage, act_cfg) for _ in range(arch.depths[stage]))
        self.window = _windows(arch)[stage]

    def forward(self, x: Tensor) -> Tensor:
        (n, c, height, width), (h, w) = x.shape, self.window
        rows, columns = height // h, width // w
        windows = x.permute(0, 2, 3, 1).reshape(n, rows, h, columns, w, c).transpose(2, 3)
        x = windows.reshape(-1, h * w, c)
        for block in self:
            x = block(x)
        return x.reshape(n, rows, columns, h, w, c).transpose(2, 3).reshape(n, height, width, c)


class Published(nn.Module):
    """The release's only form, with a copy of the weights of ``model``, our train form."""

    def __init__(self, model: PosMLP) -> None:
        super().__init__()
        arch, stages = model.arch, range(model.num_stages)
        dims = arch.dims
        self.sizes = arch.filled_sizes()
        self.stem = nn.Sequential(
            ConvNorm(model.in_channels, dims[0] // 2, 3, 2, build_activation(model.act_cfg)),
            ConvNorm(dims[0] // 2, dims[0], 3, 2, build_activation(model.act_cfg)),
            ConvNorm(dims[0], dims[0], 1, 1, nn.Identity()),
        )
        self.downsamples = nn.ModuleList(Downsample(dims[i - 1], dims[i]) for i in stages[1:])
        self.stages = nn.ModuleList(Stage(arch, i, model.act_cfg) for i in stages)
        self.out_norms = nn.ModuleDict(
            {str(i): nn.LayerNorm(dims[i], eps=EPS) for i in model.out_indices}
        )
        self.train(model.training).to(next(model.parameters()))
        self.load_state_dict(model.state_dict())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, C, H, W), of multiples of the windows in pixels, to the output levels."""
        self.sizes.check(x.shape[2], x.shape[3])
        outputs = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            tokens = stage(self.downsamples[i - 1](x) if i else x)
            x = tokens.permute(0, 3, 1, 2)
            if str(i) in self.out_norms:
                outputs.append(self.out_norms[str(i)](tokens).permute(0, 3, 1, 2))
        return tuple(outputs)


def _windows(arch: PosMLPArch) -> list[tuple[int, int]]:
    # The arch has replaced the numbers that stand for squares.
    return [w for w in arch.windows if not isinstance(w, int)]


PEERS = (
    last_level(
        PosMLP,
        Published,
        sizes=PosMLPArch.filled_sizes,
        suites={'inference_224': ('t',), 'train_224': ('t',), 'compiled': ('t',)},
    ),
)
