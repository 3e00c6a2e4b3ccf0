"""Vision Permutator as the release computes it (arXiv:2106.12368), to measure ours against.

Operation by operation: maps are (N, H, W, C), views of the convolutions' outputs; the height and
the width branch copy the map into rows of segments by a permute and copy the result back by
another; the weights of the blend are the mean of the sum of the three branches. The release infers
with what it trains. Drop path is left out.

Tensors have the names and shapes of :class:`mmwave.models.ViP`.

Shapes: N images, C channels, H x W positions of the map, in segments of S channels.
"""

from torch import Tensor, nn

from mmwave.models import ViP
from mmwave.models.backbones.vip import ViPArch
from mmwave.models.layers import build_activation
from mmwave.structures import SizeConstraint

from .base import last_level


def sizes(arch: ViPArch) -> SizeConstraint:
    """Return the one image size: maps have as many rows, and columns, as a position segments."""
    # The arch has replaced the numbers that stand for squares.
    (h, w), *_ = [grid for grid in arch.grids if not isinstance(grid, int)]
    return SizeConstraint(only=(h * arch.patch_size, w * arch.patch_size))


class Embed(nn.Module):
    """Patches that do not overlap: (N, C_in, H, W) -> (N, H', W', C_out), a permuted view."""

    def __init__(self, c_in: int, c_out: int, patch: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).permute(0, 2, 3, 1)


class Transition(Embed):
    """(N, H, W, C_in) -> (N, H / 2, W / 2, C_out)."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__(c_in, c_out, 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 3, 1, 2))


class MLP(nn.Module):
    """Two linear layers: (..., C_in) -> (..., C_out)."""

    def __init__(self, c_in: int, hidden: int, c_out: int, act_cfg: dict) -> None:
        super().__init__()
        self.fc1 = nn.Linear(c_in, hidden)
        self.act = build_activation(act_cfg)
        self.fc2 = nn.Linear(hidden, c_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Permutator(nn.Module):
    """The release's weighted permute MLP: (N, H, W, C) -> (N, H, W, C)."""

    def __init__(self, channels: int, act_cfg: dict) -> None:
        super().__init__()
        self.height = nn.Linear(channels, channels, bias=False)
        self.width = nn.Linear(channels, channels, bias=False)
        self.channel = nn.Linear(channels, channels, bias=False)
        self.reweight = MLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, rows, columns, channels = x.shape
        # Positions of the axis take the place of the segments, and the segments theirs.
        swap = (0, 3, 2, 1, 4)
        segments = x.reshape(n, rows, columns, rows, -1).permute(swap)
        h = self.height(segments.reshape(n, rows, columns, channels))
        h = h.reshape(segments.shape).permute(swap).reshape(x.shape)
        swap = (0, 1, 3, 2, 4)
        segments = x.reshape(n, rows, columns, columns, -1).permute(swap)
        w = self.width(segments.reshape(n, rows, columns, channels))
        w = w.reshape(segments.shape).permute(swap).reshape(x.shape)
        c = self.channel(x)
        pooled = (h + w + c).permute(0, 3, 1, 2).flatten(2).mean(dim=2)
        scores = self.reweight(pooled).reshape(n, channels, 3).permute(2, 0, 1)
        weights = scores.softmax(dim=0)[:, :, None, None]
        return self.proj(h * weights[0] + w * weights[1] + c * weights[2])


class Block(nn.Module):
    """Permute-MLP and channel MLP, each behind a norm and beside a shortcut."""

    def __init__(self, channels: int, mlp_ratio: int, act_cfg: dict) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.mixer = Permutator(channels, act_cfg)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = MLP(channels, mlp_ratio * channels, channels, act_cfg)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Published(nn.Module):
    """The release's only form, with a copy of the weights of ``model``, our train form."""

    def __init__(self, model: ViP) -> None:
        super().__init__()
        arch, stages = model.arch, range(model.num_stages)
        dims, grids = arch.dims, arch.grids
        self.sizes = sizes(arch)
        self.stem = Embed(model.in_channels, dims[0], arch.patch_size)
        self.downsamples = nn.ModuleList(
            nn.Identity() if grids[i] == grids[i - 1] else Transition(dims[i - 1], dims[i])
            for i in stages[1:]
        )
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(Block(dims[i], arch.mlp_ratio, model.act_cfg) for _ in range(arch.depths[i]))
            )
            for i in stages
        )
        self.out_norms = nn.ModuleDict({str(i): nn.LayerNorm(dims[i]) for i in model.out_indices})
        self.train(model.training).to(next(model.parameters()))
        self.load_state_dict(model.state_dict())

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, C, H, W) of the trained size to the output levels."""
        self.sizes.check(x.shape[2], x.shape[3])
        outputs = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            x = stage(self.downsamples[i - 1](x) if i else x)
            if str(i) in self.out_norms:
                outputs.append(self.out_norms[str(i)](x).permute(0, 3, 1, 2))
        return tuple(outputs)


PEERS = (
    last_level(
        ViP,
        Published,
        sizes=sizes,
        suites={'inference_224': ('s7',), 'train_224': ('s7',), 'compiled': ('s7',)},
    ),
)
