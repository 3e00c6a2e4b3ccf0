"""RepMLPNet.

Paper: Ding, Chen, Zhang, Han, Ding: RepMLPNet: Hierarchical Vision MLP with Re-parameterized
Locality, CVPR 2022, arXiv:2112.11081.
Published code: DingXiaoH/RepMLP at commit 3eff13f, ``repmlpnet.py`` (MIT).

A map is cut into windows, and the positions of a window are mixed by full matrices, the channel
perceptron: few of them, shared by groups of channels. The global perceptron weighs channels by the
mean of the whole map. The local perceptron adds small depthwise convolutions inside the windows,
whose locality is easy to learn; being linear, they fold into the matrices after training. A channel
MLP follows. Four stages with strides 4, 8, 16 and 32 make a pyramid.

Shapes: N images, C channels, H x W positions of the map, h x w of a window, P = h * w, S matrices.

Kept from the release: kernels of the stem and the downsamples equal their strides, without padding,
and end in ReLU; channel c uses matrix c mod S; one output norm and factor per matrix, not per
channel; the global perceptron looks at the normed map.

Differences from the published release: names of parameters; dense outputs, each with an output
norm; drop path; images of any size, see ``grid_mode``. Published weights, converted by
``tools/convert_checkpoint.py``, give the same outputs on one window. On more, the release reads
rows that are ordered (image, window, channel group) back as (image, channel group, window), so that
windows and channels are exchanged; here every window stays where it is.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.deploy.fuse import (
    conv_to_fc,
    fuse_norm_after,
    fuse_norm_before,
    pad_kernel,
)
from mmwave.models.layers import (
    Affine,
    Conv2d,
    ConvEmbed,
    DropPath,
    Linear,
    affine_of,
    batch_norms,
    build_activation,
    build_norm,
)
from mmwave.models.layers.channel_mlp import mlp_added
from mmwave.models.layers.lean import runner
from mmwave.models.layers.windows import MapGrid, WindowGrid, filled_sizes, mask_of
from mmwave.ops import conv2d, spatial_fc
from mmwave.ops.graphs import any_size
from mmwave.ops.windows import counts, cut, resize
from mmwave.registry import MODELS
from mmwave.structures import SizeConstraint

from .base import MLPBackbone, check_positive, drop_path_rates, per_stage, resolve_arch

STRIDES = (4, 8, 16, 32)
GRID_MODES = ('window', 'strict')


@dataclass(frozen=True, kw_only=True)
class RepMLPNetArch:
    """Sizes of a RepMLPNet.

    Attributes:
        depths: blocks of each of the four stages.
        dims: channels of each stage.
        windows: (h, w) of each stage's windows in positions; one number stands for a square.
        share_sets: S, matrices of each stage's channel perceptrons; divides the stage's channels.
        kernels: sides of the local perceptron's kernels, odd and increasing; none is allowed.
        reduction: by how much the global perceptron squeezes the channels.
        mlp_ratio: hidden channels of the channel MLPs, in multiples of the channels.
    """

    depths: Sequence[int]
    dims: Sequence[int]
    windows: Sequence[int | tuple[int, int]]
    share_sets: Sequence[int]
    kernels: Sequence[int] = (1, 3)
    reduction: int = 4
    mlp_ratio: int = 4

    def __post_init__(self) -> None:
        for name in ('depths', 'dims', 'share_sets'):
            object.__setattr__(self, name, per_stage(name, getattr(self, name), len(STRIDES)))
        check_positive(self, 'reduction', 'mlp_ratio')
        if isinstance(self.windows, int):
            raise ValueError(f'windows={self.windows} must be one or two numbers per stage')
        pairs = tuple(tuple(w) if isinstance(w, Sequence) else (w, w) for w in self.windows)
        whole = all(isinstance(side, int) and side > 0 for pair in pairs for side in pair)
        if len(pairs) != len(STRIDES) or not whole or any(len(p) != 2 for p in pairs):
            raise ValueError(
                f'windows={pairs} must be {len(STRIDES)} pairs of positive numbers, one per stage'
            )
        object.__setattr__(self, 'windows', pairs)
        kernels = (self.kernels,) if isinstance(self.kernels, int) else tuple(self.kernels)
        odd = all(isinstance(k, int) and k > 0 and k % 2 for k in kernels)
        if not odd or list(kernels) != sorted(set(kernels)):
            raise ValueError(f'kernels={kernels} must be odd numbers in increasing order')
        object.__setattr__(self, 'kernels', kernels)
        for dim, sets in zip(self.dims, self.share_sets, strict=True):
            if dim % sets or dim % self.reduction:
                raise ValueError(
                    f'dims={self.dims} must be multiples of share_sets={self.share_sets} '
                    f'and of reduction={self.reduction}'
                )

    def filled_sizes(self) -> SizeConstraint:
        """Image sizes whose maps are filled by the windows of every stage."""
        return filled_sizes(STRIDES, self.windows)


# The model functions of the release's repmlpnet.py.
_T = RepMLPNetArch(
    depths=(2, 2, 6, 2),
    dims=(64, 128, 256, 512),
    windows=(56, 28, 14, 7),
    share_sets=(1, 4, 16, 128),
)
_B = replace(_T, depths=(2, 2, 12, 2), dims=(96, 192, 384, 768), share_sets=(1, 4, 32, 128))
_256 = (64, 32, 16, 8)

ARCHS: Mapping[str, RepMLPNetArch] = MappingProxyType(
    {
        't224': _T,  # create_RepMLPNet_T224
        't256': replace(_T, windows=_256),
        'b224': _B,
        'b256': replace(_B, windows=_256),
        'd256': replace(_T, depths=(2, 2, 18, 2), dims=(80, 160, 320, 640), windows=_256),
        'l256': replace(_B, depths=(2, 2, 18, 2), share_sets=(1, 4, 32, 256), windows=_256),
    }
)


class GlobalPerceptron(nn.Module):
    """Weigh channels, (N, C) means -> (N, C) factors between 0 and 1."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.fc1 = Linear(channels, channels // reduction)
        self.fc2 = Linear(channels // reduction, channels)

    def forward(self, means: Tensor) -> Tensor:
        return self.fc2(F.relu(self.fc1(means))).sigmoid()


def _norm_by_set(norm: nn.Module, x: Tensor, sets: int) -> Tensor:
    """Norm (M, C, H, W) with one statistic per matrix: channel c belongs to c mod S."""
    return norm(x.reshape(-1, sets, *x.shape[2:])).reshape(x.shape)


class ChannelPerceptron(nn.Module):
    """Mix the positions of windows (N * T, C, h, w) by S matrices that the channels share.

    Gives the stage's own form: what lies outside the map is gone before the norm sees it. That norm
    is left to the block, which computes it again in the backward pass.
    """

    def __init__(self, window: tuple[int, int], sets: int, deploy: bool) -> None:
        super().__init__()
        positions = math.prod(window)
        self.weight = nn.Parameter(torch.empty(sets, positions, positions))
        # As torch fills the weight of the release's convolution.
        nn.init.uniform_(self.weight, -(positions**-0.5), positions**-0.5)
        self.bias = nn.Parameter(torch.zeros(sets, positions)) if deploy else None
        self.norm = None if deploy else build_norm('BN', sets)

    def forward(self, windows: Tensor, grid: MapGrid) -> Tensor:
        mixed = spatial_fc(windows.flatten(2), self.weight, self.bias).view(windows.shape)
        return grid.back(mixed)


class SharedConv(Conv2d):
    """A depthwise convolution whose S kernels channels share: channel c has kernel c mod S."""

    def __init__(self, sets: int, kernel_size: int) -> None:
        super().__init__(sets, sets, kernel_size, padding=kernel_size // 2, groups=sets, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> the same."""
        # Kernels repeated for all channels, not channels as a batch for S kernels: with few kernels
        # the convolution of many small batches takes several times as long.
        channels = x.shape[1]
        kernels = self.weight.repeat(channels // len(self.weight), 1, 1, 1)
        return conv2d(x, kernels, padding=self.padding, groups=channels)


class LocalPerceptron(nn.ModuleDict):
    """Depthwise convolutions inside windows, with kernels that channels share.

    Takes what :class:`ChannelPerceptron` does and gives what that does, for each kernel.
    """

    def __init__(self, kernels: Sequence[int], sets: int) -> None:
        super().__init__(
            {
                str(k): nn.ModuleDict({'conv': SharedConv(sets, k), 'norm': build_norm('BN', sets)})
                for k in kernels
            }
        )

    def forward(self, windows: Tensor, grid: MapGrid) -> list[Tensor]:
        return [grid.back(branch['conv'](windows)) for branch in self.values()]

    def as_matrices(self, window: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """The sum of all branches as (S, P, P) matrices and (S,) biases."""
        size = (max(map(int, self)),) * 2
        fused = [
            fuse_norm_after(b['conv'].weight, None, *affine_of(b['norm'])) for b in self.values()
        ]
        kernel = sum(pad_kernel(weight, size) for weight, _ in fused)
        return conv_to_fc(kernel, window), sum(bias for _, bias in fused)


class ConvFFN(nn.Module):
    """The release's channel MLP: two 1 x 1 convolutions, each with a norm, around a GELU."""

    def __init__(
        self, channels: int, hidden: int, act_cfg: dict, *, lean: bool, deploy: bool
    ) -> None:
        super().__init__()
        self.run = runner(lean)
        self.fc1 = Conv2d(channels, hidden, 1, bias=deploy)
        self.norm1 = nn.Identity() if deploy else build_norm('BN', hidden)
        self.act = build_activation(act_cfg)
        self.fc2 = Conv2d(hidden, channels, 1, bias=deploy)
        self.norm2 = nn.Identity() if deploy else build_norm('BN', channels)

    def forward(self, x: Tensor, norm: nn.Module) -> Tensor:
        """The MLP of ``norm(x)``."""
        hidden = self.run(self.fc1, norm, x)
        out = self.run(self.fc2, self._activated, hidden, modules=(self.norm1, self.act))
        return self.norm2(out)

    def _activated(self, hidden: Tensor) -> Tensor:
        return self.act(self.norm1(hidden))


class RepMLPBlock(nn.Module):
    """The paper's RepMLP block and FFN block, each behind a norm and beside a shortcut."""

    def __init__(
        self,
        stage: int,
        arch: RepMLPNetArch,
        *,
        drop_path: float,
        act_cfg: dict,
        lean: bool,
        deploy: bool,
    ) -> None:
        super().__init__()
        self.run, self.deploy = runner(lean and not deploy), deploy
        channels, sets = arch.dims[stage], arch.share_sets[stage]
        self.window = arch.windows[stage]
        self.norm1 = Affine(channels) if deploy else build_norm('BN', channels)
        self.global_perceptron = GlobalPerceptron(channels, arch.reduction)
        self.channel_perceptron = ChannelPerceptron(self.window, sets, deploy)
        local = arch.kernels and not deploy
        self.local_perceptron = LocalPerceptron(arch.kernels, sets) if local else None
        self.norm2 = nn.Identity() if deploy else build_norm('BN', channels)
        self.ffn = ConvFFN(
            channels, arch.mlp_ratio * channels, act_cfg, lean=lean and not deploy, deploy=deploy
        )
        self.drop_path = DropPath(drop_path) if drop_path else None

    def forward(self, x: Tensor, grid: MapGrid) -> Tensor:
        local = self.local_perceptron

        def normed(x: Tensor) -> Tensor:
            return grid.windows(self.norm1(x))

        def perceptrons(windows: Tensor) -> tuple[Tensor, ...]:
            factors = self.global_perceptron(grid.mean(windows))
            mixed = self.channel_perceptron(windows, grid)
            return factors, mixed, *(() if local is None else local(windows, grid))

        factors, *parts = self.run(perceptrons, normed, x, modules=(self.norm1,))
        # Dropped by image, not by window: through the factors, which are one per image.
        weights, shortcut = grid.spread(self._dropped(factors)), x

        def weighed(mixed: Tensor) -> Tensor:
            return torch.addcmul(shortcut, mixed, weights)

        x = self.run(weighed, self._summed, *parts, modules=self._branch_norms())
        if self.deploy and x.device.type == 'cpu':
            # A 1 x 1 convolution of channels that lie apart takes up to three times as long.
            rows = x.permute(0, 2, 3, 1).contiguous()
            return mlp_added(rows, rows, self.ffn).permute(0, 3, 1, 2).contiguous()
        branch = self.ffn(x, self.norm2)
        if self.drop_path is not None and self.training:
            branch = branch * grid.spread(self._dropped(torch.ones_like(factors[:, :1])))
        return x + branch

    def _branch_norms(self) -> list[nn.Module]:
        """The norms behind the channel and the local perceptron."""
        local = self.local_perceptron
        branches = [] if local is None else [branch['norm'] for branch in local.values()]
        return [n for n in (self.channel_perceptron.norm, *branches) if n is not None]

    def _summed(self, *parts: Tensor) -> Tensor:
        """What both perceptrons give, each part normed, added up."""
        norms = self._branch_norms()
        if not norms:
            return parts[0]
        sets = len(self.channel_perceptron.weight)
        mixed, *local = (_norm_by_set(n, x, sets) for n, x in zip(norms, parts, strict=True))
        return mixed + sum(local[1:], local[0]) if local else mixed

    def _dropped(self, factors: Tensor) -> Tensor:
        return factors if self.drop_path is None else self.drop_path(factors)

    def deploy_state(self) -> dict[str, Tensor]:
        """The deploy form's tensors, computed from this train form's."""
        state = {
            f'global_perceptron.{k}': v for k, v in self.global_perceptron.state_dict().items()
        }
        state['norm1.weight'], state['norm1.bias'] = affine_of(self.norm1)
        channel = self.channel_perceptron
        sets, positions = channel.weight.shape[:2]
        matrices, offset = fuse_norm_after(channel.weight, None, *affine_of(channel.norm))
        if self.local_perceptron is not None:
            more, offsets = self.local_perceptron.as_matrices(self.window)
            matrices, offset = matrices + more, offset + offsets
        state['channel_perceptron.weight'] = matrices
        state['channel_perceptron.bias'] = offset[:, None].expand(sets, positions)
        first = fuse_norm_after(self.ffn.fc1.weight, None, *affine_of(self.ffn.norm1))
        first = fuse_norm_before(*first, *affine_of(self.norm2))
        second = fuse_norm_after(self.ffn.fc2.weight, None, *affine_of(self.ffn.norm2))
        for name, (weight, bias) in (('fc1', first), ('fc2', second)):
            state[f'ffn.{name}.weight'], state[f'ffn.{name}.bias'] = weight, bias
        state |= {f'ffn.act.{k}': v for k, v in self.ffn.act.named_parameters()}
        return state


@MODELS.register_module()
class RepMLPNet(MLPBackbone):
    """RepMLPNet as a pyramid of maps with strides 4, 8, 16 and 32.

    Takes images (N, in_channels, H, W) and gives one map per entry of ``out_indices``, taken before
    the downsample that follows the stage, each through an output norm of its own; ``stage_info``
    tells channels and strides. The map of stride s has ceil(H / s) x ceil(W / s) positions. The
    published classifier is ``out_indices=(3,)`` with average pooling and a linear head.

    The published variants have windows of 224 or 256 pixels, as their names say, at every stage.
    Such a map is cut once, on the image, and its windows are a longer batch to all layers. Where
    batch norms take statistics of images that need padding, each block cuts its map instead and
    joins it in front of every norm: padding enters no statistic.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`RepMLPNetArch`.
        in_channels: channels of the images.
        out_indices: stages to output, increasing; negative ones count from the last.
        grid_mode: ``'window'`` takes any size from 32 x 32 up: maps are cut into windows, the last
            ones filled up with zeros behind the norm in front of the perceptrons; the global
            perceptron averages over the map alone. ``'strict'`` takes sizes that windows fill.
        lean: in training, keep inputs of norms and compute their and the activations' results again
            in the backward pass: the same gradients and statistics, with less memory.
        deploy: build the deploy form: norms folded into the layers beside them, local branches
            into the matrices. It is for inference and takes the weights that
            :func:`mmwave.deploy.to_deploy` makes, or converted deploy files.
        drop_path_rate: probability to drop the last block's branches in training; it grows linearly
            from 0 over the blocks of all stages. Published: 0.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        norm_eval: keep every batch norm in eval mode during training.
        with_cp: compute activations again in the backward pass instead of storing them.
        act_cfg: activation of the channel MLPs. Published: GELU; weights converted from MindSpore
            need ``dict(type='GELU', approximate='tanh')``.
        init_cfg: mmengine init config; see :class:`MLPBackbone`.

    Attributes:
        cut_once: whether maps may be cut on the image; false where the windows of two stages show
            different pixels. Set it to False to have every block cut its map always.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, ``out_indices``, ``frozen_stages`` or
            ``drop_path_rate`` out of range, and in ``forward`` for an image too small or, with
            ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(type='GELU')})
    kept_settings = (*MLPBackbone.kept_settings, 'grid_mode')
    form_marks = ('.channel_perceptron.weight', '.channel_perceptron.norm.weight')

    def __init__(
        self,
        arch: str | dict | RepMLPNetArch = 't224',
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        grid_mode: Literal['window', 'strict'] = 'window',
        lean: bool = True,
        deploy: bool = False,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        if grid_mode not in GRID_MODES:
            raise ValueError(
                f'unknown grid_mode {grid_mode!r}: RepMLPNet has {", ".join(GRID_MODES)}'
            )
        super().__init__(
            channels=sizes.dims,
            strides=STRIDES,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            lean=lean,
            deploy=deploy,
            size_constraint=sizes.filled_sizes() if grid_mode == 'strict' else None,
            init_cfg=init_cfg,
        )
        self.arch = sizes
        self.in_channels = in_channels
        self.grid_mode = grid_mode
        self.act_cfg = dict(act_cfg or dict(type='GELU'))
        halves = zip(sizes.windows, sizes.windows[1:], strict=False)
        self.cut_once = all(a == (2 * h, 2 * w) for a, (h, w) in halves)

        def embed(i: int) -> ConvEmbed:
            side = 2 if i else STRIDES[0]
            return ConvEmbed(
                sizes.dims[i - 1] if i else in_channels,
                sizes.dims[i],
                kernel_size=side,
                stride=side,
                padding=0,
                bias=deploy,
                norm=None if deploy else build_norm('BN', sizes.dims[i]),
                act=nn.ReLU(),
            )

        rates = drop_path_rates(drop_path_rate, sizes.depths)
        stages = range(self.num_stages)
        self.stem = embed(0)
        self.downsamples = nn.ModuleList(embed(i) for i in stages[1:])
        self.stages = nn.ModuleList(
            nn.Sequential(
                *(
                    RepMLPBlock(
                        i,
                        sizes,
                        drop_path=rate,
                        act_cfg=self.act_cfg,
                        lean=lean,
                        deploy=deploy,
                    )
                    for rate in rates[i]
                )
            )
            for i in stages
        )
        self.out_norms = nn.ModuleDict(
            {str(i): build_norm('BN', sizes.dims[i]) for i in self.out_indices}
        )
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the levels that ``stage_info`` describes."""
        self.check_input(x)
        outputs = []
        x, grids = self._enter(x)
        for i, grid in enumerate(grids):
            x = self.downsamples[i - 1](grids[i - 1].even(x)) if i else self.stem(x)
            x = self.run_blocks(i, x, grid)
            if i in self.out_indices:
                outputs.append(self.out_norms[str(i)](grid.whole(x)))
        return tuple(outputs)

    def _enter(self, x: Tensor) -> tuple[Tensor, list[MapGrid]]:
        """The images as the stem takes them, and the grid of every stage."""
        height, width = x.shape[2:]
        strides = STRIDES[: self.num_stages]
        # Each of the one before, as convolutions do: to torch.compile it is the same number.
        sizes = [counts((height, width), (STRIDES[0], STRIDES[0]))]
        for _ in strides[1:]:
            sizes.append(counts(sizes[-1], (2, 2)))
        # A graph that is to hold for every size is built for sizes that need padding.
        fits = self.grid_mode == 'strict' or (
            not any_size(height, width)
            and not any(s % w for s, w in zip((height, width), self._window_pixels, strict=True))
        )
        if self.cut_once and (fits or not self._takes_statistics()):
            shape = counts((height, width), self._window_pixels)
            grids = [
                WindowGrid(
                    size, window, shape, None if fits else mask_of(size, window, shape, like=x)
                )
                for size, window in zip(sizes, self.arch.windows, strict=False)
            ]
            return cut(x, self._window_pixels, shape), grids
        x = resize(x, tuple(STRIDES[0] * side for side in sizes[0]))
        return x, [
            MapGrid(size, window, counts(size, window))
            for size, window in zip(sizes, self.arch.windows, strict=False)
        ]

    def _takes_statistics(self) -> bool:
        """Whether any norm in front of an output norm normalises by the batch at hand."""
        parts = (self.stem, self.downsamples, self.stages)
        return any(norm.training for part in parts for norm in batch_norms(part))

    @property
    def _window_pixels(self) -> tuple[int, int]:
        h, w = self.arch.windows[0]
        return STRIDES[0] * h, STRIDES[0] * w

    def deploy_form(self) -> tuple[MLPBackbone, tuple[str, ...]]:
        twin, folded = super().deploy_form()
        twin.cut_once = self.cut_once
        return twin, folded

    def deploy_state(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        state = {f'out_norms.{k}': v for k, v in self.out_norms.state_dict().items()}
        parts: dict[str, Any] = {'stem': self.stem}
        parts |= {f'downsamples.{i}': part for i, part in enumerate(self.downsamples)}
        for name, part in parts.items():
            weight, bias = fuse_norm_after(part.conv.weight, None, *affine_of(part.norm))
            state[f'{name}.conv.weight'], state[f'{name}.conv.bias'] = weight, bias
        state |= self.deployed_blocks()
        branches = len(self.arch.kernels)
        return state, (
            f'the norms of {len(parts)} embeddings into their convolutions',
            f'{branches} local branches and {branches + 1} norms into the matrices of each of '
            f'{self.num_blocks} channel perceptrons',
            f'3 norms into the 2 convolutions of each of {self.num_blocks} channel MLPs',
        )
