"""PosMLP.

Paper: Wang, Hao, Gao, Zhang, Wang, Mu, He: Parameterization of Cross-Token Relations with Relative
Positional Encoding for Vision MLP, ACM Multimedia 2022, arXiv:2207.07284.
Published code: Zhicaiwww/PosMLP at commit 654f020, ``models/posmlp.py``, ``models/posmlp2D.py`` and
``models/patch_downsample.py``.

A block is one channel MLP. Between its two layers the hidden channels are split in halves, and one
half, mixed over the positions of a window, gates the other, as in gMLP. The matrices that mix are
not learnt entry by entry but computed of relative positions: row p is a softmax over q of a
quadratic form of the offset from p to q, a Gaussian with a centre and a spread. A group of channels
has one of each, six numbers. Four stages with strides 4, 8, 16 and 32 make a pyramid.

Shapes: N images, C channels, H x W positions of the map, h x w of a window, P = h * w, S groups.

Kept from the release, since its weights were trained so:
- of an offset the first number counts columns to the right, the second rows upwards;
- channel c belongs to group c mod S;
- the first half of the hidden channels is mixed, the second is gated;
- every norm has an epsilon of 1e-6.

Differences from the published release: names of parameters; dense outputs, each with an output
norm; images of any size, see ``grid_mode``; kernels are computed of the offsets, where the release
holds a table of their products per block; initial values. Published weights, converted by
``tools/convert_checkpoint.py``, give the same outputs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_after, fuse_norm_before
from mmwave.models.layers import Conv2d, ConvEmbed, DropPath, Linear, affine_of, build_activation
from mmwave.models.layers.channel_mlp import activated, linear_activated, spare
from mmwave.models.layers.lean import keep, runner
from mmwave.models.layers.token_grid import resampling
from mmwave.models.layers.windows import filled_sizes, mask_of
from mmwave.ops import conv2d, linear, spatial_fc
from mmwave.ops.graphs import any_size, one_size
from mmwave.ops.kept import kept
from mmwave.ops.layout import channels_last
from mmwave.ops.windows import counts, cut, join
from mmwave.registry import MODELS
from mmwave.structures import SizeConstraint

from .base import MLPBackbone, check_rate, drop_path_rates, init_linear, per_stage, resolve_arch
from .grid import GridMode, check_grid_mode, grid_pair

STRIDES = (4, 8, 16, 32)
EPS = 1e-6
ROWS = 2048
"""Positions that a block of the deploy form takes at a time on the CPU, in whole windows."""
KEPT = 4
"""Windows that a gate of the deploy form keeps kernels for: as many as one image has kinds."""


@dataclass(frozen=True, kw_only=True)
class PosMLPArch:
    """Sizes of a PosMLP.

    Attributes:
        depths: blocks of each of the four stages.
        dims: channels of each stage, multiples of the stage's before; the first ones even.
        mlp_ratios: hidden channels of each stage's blocks, in multiples of its channels; half of
            them are gated.
        windows: (h, w) of each stage's windows in positions; one number stands for a square.
        groups: S of each stage, kernels of a gate; divides the gated channels.
    """

    depths: Sequence[int]
    dims: Sequence[int]
    mlp_ratios: Sequence[int] = (4, 4, 4, 2)
    windows: Sequence[int | tuple[int, int]] = (14, 14, 14, 7)
    groups: Sequence[int] = (8, 16, 32, 64)

    def __post_init__(self) -> None:
        for name in ('depths', 'dims', 'mlp_ratios', 'groups'):
            object.__setattr__(self, name, per_stage(name, getattr(self, name), len(STRIDES)))
        given = (self.windows,) if isinstance(self.windows, int) else tuple(self.windows)
        if len(given) != len(STRIDES):
            raise ValueError(f'windows={given} must be {len(STRIDES)}, one per stage')
        object.__setattr__(self, 'windows', tuple(grid_pair('windows', w) for w in given))
        if any(dim % before for before, dim in zip((2, *self.dims), self.dims, strict=False)):
            raise ValueError(
                f'dims={self.dims} must be even and each a multiple of the one before: the '
                'convolution of a downsample is depthwise'
            )
        for dim, ratio, groups in zip(self.dims, self.mlp_ratios, self.groups, strict=True):
            if dim * ratio % (2 * groups):
                raise ValueError(
                    f'half of dims={self.dims} times mlp_ratios={self.mlp_ratios} must be '
                    f'multiples of groups={self.groups}'
                )

    def filled_sizes(self) -> SizeConstraint:
        """Image sizes whose maps are filled by the windows of every stage."""
        return filled_sizes(STRIDES, self.windows)


_T = PosMLPArch(depths=(2, 2, 18, 2), dims=(96, 192, 384, 768))

ARCHS: Mapping[str, PosMLPArch] = MappingProxyType(
    {
        't': _T,  # T14 of the release's posmlp.py
        's': replace(_T, dims=(128, 256, 512, 1024)),  # S14
        # A row of the README alone, which names no channels: these have its number of parameters.
        'b': replace(_T, dims=(192, 384, 768, 1536)),
    }
)


def positional_kernel(centers: Tensor, spreads: Tensor, window: tuple[int, int]) -> Tensor:
    r"""How much of position q goes into position p of a window, by their offset alone.

    .. math:: K_{s,p,q} \propto \exp(-\tfrac12 (d - \mu_s)^T A_s A_s^T (d - \mu_s)),
        \quad \sum_q K_{s,p,q} = 1

    d is the offset from p to q: columns to the right, then rows upwards.

    Args:
        centers: mu, (S, 2), in positions.
        spreads: A, (S, 2, 2), in one over positions: A A^T is the inverse of a covariance.
        window: h and w, positions numbered row by row.

    Returns:
        (S, P, P), computed at least in float32.

    Source: Zhicaiwww/PosMLP ``models/posmlp2D.py`` (generalised quadratic positional encoding).
    """
    exact = torch.promote_types(centers.dtype, torch.float32)
    centers, spreads = centers.to(exact), spreads.to(exact)
    rows, columns = (torch.arange(n, device=centers.device, dtype=exact) for n in window)
    right = (columns - columns[:, None]) - centers[:, 0, None, None]  # (S, w of p, w of q)
    up = (rows[:, None] - rows) - centers[:, 1, None, None]  # (S, h of p, h of q)
    # Written out, since autocast would lower the precision of matrix products.
    diagonal = spreads.square().sum(dim=2)[..., None, None]
    beside = (spreads[:, 0] * spreads[:, 1]).sum(dim=1)[:, None, None]
    along_w = (diagonal[:, 0] * right.square())[:, None, :, None, :]
    along_h = (diagonal[:, 1] * up.square())[:, :, None, :, None]
    crossed = (beside * up)[:, :, None, :, None] * right[:, None, :, None, :]
    forms = along_w + along_h + 2 * crossed  # (S, h, w, h, w)
    return (forms.flatten(3).flatten(1, 2) / -2).softmax(dim=2)


def spans(side: int, step: int) -> list[tuple[int, int]]:
    """Cut an axis into windows whose sides come as near to ``step`` positions as they can.

    Returns:
        (windows, their side), sides as equal as can be: one or two, the larger first.
    """
    side = one_size(side)
    count = max(side // step, 1)
    if side / count - step > step - side / (count + 1):  # one more would be nearer
        count += 1
    short, longer = side // count, side % count
    return [(n, s) for n, s in ((longer, short + 1), (count - longer, short)) if n]


def cuts(side: int, step: int) -> list[tuple[int, int]]:
    """Windows of ``step`` positions along an axis, and one of what is left: as :func:`spans`."""
    full, rest = divmod(side, step)
    return [(n, s) for n, s in ((full, step), (1, rest)) if n and s]


def by_parts(
    x: Tensor,
    rows: Sequence[tuple[int, int]],
    columns: Sequence[tuple[int, int]],
    run: Callable[[Tensor, tuple[int, int]], Tensor],
) -> Tensor:
    """Run ``run`` on the parts of a map (N, H, W, C) whose windows are of one size.

    Args:
        x: the map.
        rows: (windows, their height), from the top down.
        columns: (windows, their width), from the left.
        run: maps a part and the size of its windows to as large a part.
    """
    bands = []
    for (_, h), band in zip(rows, x.split([n * h for n, h in rows], dim=1), strict=True):
        parts = band.split([n * w for n, w in columns], dim=2)
        done = [run(part, (h, w)) for (_, w), part in zip(columns, parts, strict=True)]
        bands.append(done[0] if len(done) == 1 else torch.cat(done, dim=2))
    return bands[0] if len(bands) == 1 else torch.cat(bands, dim=1)


class PositionalGate(nn.Module):
    """The paper's positional spatial gating unit, but for the product: (N, H, W, C) -> the same.

    It takes the half of the channels that is mixed and gives what the other half is gated by.

    Args:
        window: h and w.
        groups: S.
        resize: mix windows of the map's own sizes instead of filling up trained ones.
    """

    def __init__(self, window: tuple[int, int], groups: int, resize: bool) -> None:
        super().__init__()
        self.window, self.resize = window, resize
        # Kernels start as blurs about neighbours drawn at random, one position wide.
        self.centers = nn.Parameter(torch.randn(groups, 2))
        self.spreads = nn.Parameter(torch.eye(2) + 0.01 * torch.randn(groups, 2, 2))
        self.bias = nn.Parameter(torch.ones(1, window[0] * window[1]))

    def forward(
        self, x: Tensor, act: nn.Module | None = None, run: Callable[..., Any] = keep
    ) -> Tensor:
        """Mix ``act(x)``; ``run`` is how, see :func:`mmwave.models.layers.lean.runner`."""
        mix = self.mix_map if self.resize else self.mix_trained
        return mix(x, act, run)

    def mix_trained(
        self, x: Tensor, act: nn.Module | None = None, run: Callable[..., Any] = keep
    ) -> Tensor:
        """Mix a map (N, H, W, C) in windows of the trained size."""
        return self.mix(x, self.window, act, run)

    def mix_map(
        self, x: Tensor, act: nn.Module | None = None, run: Callable[..., Any] = keep
    ) -> Tensor:
        """Mix a map (N, H, W, C) in windows that fill it, of up to two heights and two widths."""
        rows, columns = (spans(n, s) for n, s in zip(x.shape[1:3], self.window, strict=True))
        return by_parts(x, rows, columns, lambda part, window: self.mix(part, window, act, run))

    def mix(
        self,
        x: Tensor,
        window: tuple[int, int],
        act: nn.Module | None = None,
        run: Callable[..., Any] = keep,
    ) -> Tensor:
        """Mix a map (N, H, W, C) in windows, the last ones filled up with zeros."""
        size = (x.shape[1], x.shape[2])
        shape = counts(size, window)
        kernel = positional_kernel(self.centers, self.spreads, window)
        bias = self.bias_of(window, self.bias)

        def windows(x: Tensor) -> Tensor:
            x = x if act is None else act(x)
            x = cut(x.permute(0, 3, 1, 2), window, shape).flatten(2)
            # Several kernels take it so: made here, the copy is not what is kept.
            return x if len(kernel) == 1 else x.contiguous()

        def product(x: Tensor) -> Tensor:
            cast = kernel.to(x)
            return spatial_fc(x, cast, bias.to(x).expand(cast.shape[:2])).unflatten(2, window)

        x = run(product, windows, x, modules=() if act is None else (act,))
        return join(x, size, shape).permute(0, 2, 3, 1)

    def bias_of(self, window: tuple[int, int], bias: Tensor) -> Tensor:
        """The bias of a window's positions, interpolated where it is no trained one: (1, P)."""
        if window == self.window:
            return bias
        bias = bias.view(self.window)
        rows, columns = (
            resampling(source, target, like=bias)
            for source, target in zip(self.window, window, strict=True)
        )
        return (rows @ bias @ columns.T).view(1, -1)

    def deploy_state(self) -> dict[str, Tensor]:
        """The tensors of :class:`KernelGate` that mix the same."""
        if self.resize:
            return dict(self.named_parameters())
        kernel = positional_kernel(self.centers, self.spreads, self.window)
        return {'kernel': kernel, 'bias': self.bias}


class PosMLPBlock(nn.Module):
    """A gated channel MLP behind a norm and beside a shortcut, (N, H, W, C) -> (N, H, W, C)."""

    def __init__(
        self,
        stage: int,
        arch: PosMLPArch,
        *,
        drop_rate: float,
        drop_path: float,
        act_cfg: dict,
        resize: bool,
        lean: bool = True,
    ) -> None:
        super().__init__()
        self.run = runner(lean)
        channels = arch.dims[stage]
        hidden = channels * arch.mlp_ratios[stage]
        self.norm = nn.LayerNorm(channels, eps=EPS)
        self.fc1 = Linear(channels, hidden)
        self.act = build_activation(act_cfg)
        self.gate = PositionalGate(arch.windows[stage], arch.groups[stage], resize)
        self.fc2 = Linear(hidden // 2, channels)
        self.drop = nn.Dropout(drop_rate)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.apply(init_linear)

    def forward(self, x: Tensor) -> Tensor:
        act = self.act
        # Copied, since halves of wide rows are read at up to four times the cost.
        first, second = (h.contiguous() for h in self.fc1(self.norm(x)).chunk(2, dim=-1))
        mixed = self.gate(first, act, self.run)
        branch = self.run(self.fc2, lambda s, m: act(s) * m, second, mixed, modules=(act,))
        return x + self.drop_path(self.drop(branch))

    def deploy_state(self) -> dict[str, Tensor]:
        """The tensors of :class:`FusedPosMLPBlock` that compute the same."""
        weight, bias = fuse_norm_before(self.fc1.weight, self.fc1.bias, *affine_of(self.norm))
        # Channels of a group side by side: c mod S, c // S -> one after the other.
        channels = torch.arange(self.fc2.in_features).view(-1, len(self.gate.centers)).T.flatten()
        both = torch.cat([channels, len(channels) + channels])
        state = {f'gate.{k}': v for k, v in self.gate.deploy_state().items()}
        state |= {f'act.{k}': v for k, v in self.act.named_parameters()}
        state['fc1.weight'], state['fc1.bias'] = weight[both], bias[both]
        state['fc2.weight'], state['fc2.bias'] = self.fc2.weight[:, channels], self.fc2.bias
        return state


class KernelGate(PositionalGate):
    """What a gate of the deploy form mixes windows by.

    It holds the kernels of trained windows, or what kernels of any size are computed of. The last
    few that were made of those are :func:`~mmwave.ops.kept.kept`.
    """

    def __init__(self, window: tuple[int, int], groups: int, resize: bool) -> None:
        super().__init__(window, groups, resize)
        if not resize:
            del self.centers, self.spreads
            positions = math.prod(window)
            self.kernel = nn.Parameter(torch.zeros(groups, positions, positions))

    def kernels(self, window: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """(S, P, P) and the bias (1, P) for windows of a size.

        Those smaller than the trained one lie at the border of a map: what the zeros around it
        would meet is left out.
        """
        if not self.resize and window == self.window:
            return self.kernel, self.bias
        if self.resize:
            make, sources = self._evaluated, (self.centers, self.spreads, self.bias)
        else:
            make, sources = self._cropped, (self.kernel, self.bias)
        make = partial(make, window)
        if not spare(self.bias):
            return make(*sources)
        how = 'kernels', self.window, window
        return kept(how, make, *sources, most=KEPT) or make(*sources)

    def _evaluated(
        self, window: tuple[int, int], centers: Tensor, spreads: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        kernel = positional_kernel(centers, spreads, window)
        return kernel.to(bias), self.bias_of(window, bias)

    def _cropped(
        self, window: tuple[int, int], kernel: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor]:
        h, w = window
        kernel = kernel.view(-1, *self.window, *self.window)[:, :h, :w, :h, :w]
        bias = bias.view(self.window)[:h, :w]
        return kernel.flatten(3).flatten(1, 2), bias.reshape(1, -1)


class FusedPosMLPBlock(nn.Module):
    """The block's deploy form, on windows of one size: (M, P, C) -> (M, P, C).

    What lies between its two layers is held transposed, (hidden channels, M * P) with the channels
    of a group side by side: a group's values are the rows that its kernel takes as they lie, and no
    product needs a copy.
    """

    def __init__(self, stage: int, arch: PosMLPArch, *, act_cfg: dict, resize: bool) -> None:
        super().__init__()
        channels = arch.dims[stage]
        hidden = channels * arch.mlp_ratios[stage]
        self.fc1 = Linear(channels, hidden)
        self.act = build_activation(act_cfg)
        self.gate = KernelGate(arch.windows[stage], arch.groups[stage], resize)
        self.fc2 = Linear(hidden // 2, channels)

    def forward(self, x: Tensor, window: tuple[int, int], mask: Tensor | None = None) -> Tensor:
        """Windows of (h, w), of which ``mask`` (M, P), where given, is 1 on the map, 0 outside.

        Graphs alone fill windows up and need one. Where none is recorded, the result is written
        over ``x``.
        """
        kernel, bias = self.gate.kernels(window)
        if any_size():
            return x + self._recorded(x, kernel, bias, mask)
        if not spare(x):
            return x + self._branch(x, kernel, bias)
        step = max(ROWS // x.shape[1], 1) if x.device.type == 'cpu' else x.shape[0]
        for part in x.split(step):
            part.add_(self._branch(part, kernel, bias))
        return x

    def _branch(self, x: Tensor, kernel: Tensor, bias: Tensor) -> Tensor:
        rows = F.layer_norm(x, x.shape[2:], eps=EPS).flatten(0, 1)
        hidden, offset = linear(self.fc1.weight, rows), self.fc1.bias[:, None]
        hidden = hidden.add_(offset) if spare(hidden, offset) else hidden + offset
        mixed, gated = activated(self.act, hidden).chunk(2)
        mixed = mixed.view(kernel.shape[0], -1, kernel.shape[2]).transpose(0, 1)
        mixed = spatial_fc(mixed, kernel, bias.expand(len(kernel), -1)).transpose(0, 1)
        mixed = mixed.reshape(gated.shape)
        mixed = mixed.mul_(gated) if spare(mixed, gated) else mixed * gated
        return self.fc2(mixed.t()).view_as(x)

    def _recorded(self, x: Tensor, kernel: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """:meth:`_branch` in a graph, whose compiler lays values anew beside other work on them."""
        rows = F.layer_norm(x, x.shape[2:], eps=EPS)
        hidden = linear_activated(rows, self.fc1.weight, self.fc1.bias, self.act)
        mixed, gated = hidden.chunk(2, dim=2)
        if mask is not None:
            mixed = mixed * mask[..., None]
        # (M, P, S, C / S) -> (M, C, P), channel c of group c mod S; and back.
        sets = len(kernel)
        mixed = mixed.unflatten(2, (sets, -1)).permute(0, 3, 2, 1).flatten(1, 2)
        mixed = spatial_fc(mixed, kernel, bias.expand(sets, -1))
        mixed = mixed.unflatten(1, (-1, sets)).permute(0, 3, 2, 1).flatten(2)
        return self.fc2(mixed * gated)


class ConvStem(nn.Sequential):
    """Two convolutions of stride 2 and one of stride 1: (N, C_in, H, W) -> (N, H / 4, W / 4, C).

    In deploy form without norms, and channels last in memory from the image on.
    """

    def __init__(self, in_channels: int, channels: int, act_cfg: dict, deploy: bool) -> None:
        def embed(inputs: int, outputs: int, size: int, stride: int, act: bool) -> ConvEmbed:
            return ConvEmbed(
                inputs,
                outputs,
                kernel_size=size,
                stride=stride,
                padding=size // 2,
                norm=None if deploy else nn.BatchNorm2d(outputs, eps=EPS),
                act=build_activation(act_cfg) if act else None,
            )

        super().__init__(
            embed(in_channels, channels // 2, 3, 2, act=True),
            embed(channels // 2, channels, 3, 2, act=True),
            embed(channels, channels, 1, 1, act=False),
        )
        self.deploy = deploy

    def forward(self, x: Tensor) -> Tensor:
        if self.deploy:
            x = channels_last(x)
            for part in self:
                x = activated(part.act, part.conv(x))
        else:
            x = super().forward(x)
        return x.permute(0, 2, 3, 1).contiguous()


class Downsample(nn.Module):
    """A depthwise convolution of stride 2 and a norm: (N, H, W, C) -> (N, H / 2, W / 2, C')."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, 3, 2, padding=1, groups=in_channels)
        self.norm = nn.LayerNorm(out_channels, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))

    def deploy_state(self) -> dict[str, Tensor]:
        """The tensors of :class:`SplitDownsample` that compute the same."""
        state = dict(self.named_parameters())
        for name in ('conv.weight', 'conv.bias'):
            outputs = state[name].unflatten(0, (self.conv.in_channels, -1))
            state[name] = outputs.transpose(0, 1).flatten(0, 1)
        return state


class SplitDownsample(Downsample):
    """The same, several outputs of each input computed by as many depthwise convolutions.

    Libraries have fast convolutions for one output of each input alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        channels, conv = x.shape[3], self.conv
        pairs = zip(conv.weight.split(channels), conv.bias.split(channels), strict=True)
        x, sides = x.permute(0, 3, 1, 2), (conv.stride, conv.padding)
        outputs = [conv2d(x, w, b, *sides, groups=channels) for w, b in pairs]
        return self.norm(torch.stack([o.permute(0, 2, 3, 1) for o in outputs], dim=4).flatten(3))


@MODELS.register_module()
class PosMLP(MLPBackbone):
    """PosMLP as a pyramid of maps with strides 4, 8, 16 and 32.

    Takes images (N, in_channels, H, W) of any size from 32 x 32 up and gives one map
    (N, C, ceil(H / s), ceil(W / s)) of stride s per entry of ``out_indices``, taken before the
    downsample that follows the stage, each through an output norm of its own; ``stage_info`` tells
    channels and strides. The published classifier is ``out_indices=(3,)`` with average pooling and
    a linear head.

    The stem and the downsamples overlap windows, so every block cuts the map and joins it again.
    The published variants fill their windows on images whose sides are multiples of 224; there all
    modes are the same, bit for bit.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`PosMLPArch`.
        in_channels: channels of the images.
        out_indices: stages to output, increasing; negative ones count from the last.
        grid_mode: ``'window'``: maps are cut into windows of the trained size, the last ones filled
            up with zeros in front of the mixing. ``'resize'``: maps are cut into windows that fill
            them, as many as come nearest to the trained size; the kernels are evaluated for
            windows of that size and the bias is interpolated. A graph that is exported, traced or
            compiled in this mode holds for one image size. ``'strict'`` takes sizes that windows
            fill.
        drop_rate: probability to drop a value of a block's last layer in training. Published:
            0.0233.
        drop_path_rate: probability to drop the last block's branch in training; it grows linearly
            from 0 over the blocks of all stages.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        norm_eval: keep every batch norm, all of the stem, in eval mode during training.
        with_cp: compute activations again in the backward pass instead of storing them.
        lean: compute activations and gates again in the backward pass; see :class:`MLPBackbone`.
        deploy: build the deploy form: norms folded, kernels computed once, no copies around the
            mixing. With ``'resize'`` kernels depend on the map, and the last few are kept. It is
            for inference and takes the weights that :func:`mmwave.deploy.to_deploy` makes, which
            are others with ``'resize'`` than without.
        act_cfg: activation of the stem and the blocks. Published: GELU.
        init_cfg: mmengine init config; see :class:`MLPBackbone`.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, ``out_indices``, ``frozen_stages``,
            ``drop_rate`` or ``drop_path_rate`` out of range, and in ``forward`` for an image too
            small or, with ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(type='GELU')})
    kept_settings = (*MLPBackbone.kept_settings, 'grid_mode')
    form_marks = ('.fc2.weight', 'stem.0.norm.weight')

    def __init__(
        self,
        arch: str | dict | PosMLPArch = 't',
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        grid_mode: GridMode = 'window',
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        lean: bool = True,
        deploy: bool = False,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        check_grid_mode('PosMLP', grid_mode)
        check_rate('drop_rate', drop_rate)
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

        resize = grid_mode == 'resize'

        def block(stage: int, drop_path: float) -> nn.Module:
            if deploy:
                return FusedPosMLPBlock(stage, sizes, act_cfg=self.act_cfg, resize=resize)
            return PosMLPBlock(
                stage,
                sizes,
                drop_rate=drop_rate,
                drop_path=drop_path,
                act_cfg=self.act_cfg,
                resize=resize,
                lean=lean,
            )

        rates = drop_path_rates(drop_path_rate, sizes.depths)
        stages, dims = range(self.num_stages), sizes.dims
        self.stem = ConvStem(in_channels, dims[0], self.act_cfg, deploy)
        halve = SplitDownsample if deploy else Downsample
        self.downsamples = nn.ModuleList(halve(dims[i - 1], dims[i]) for i in stages[1:])
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(i, rate) for rate in rates[i])) for i in stages
        )
        self.out_norms = nn.ModuleDict(
            {str(i): nn.LayerNorm(dims[i], eps=EPS) for i in self.out_indices}
        )
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the levels that ``stage_info`` describes."""
        return tuple(x.permute(0, 3, 1, 2) for x in super().forward(x))

    def run_blocks(self, index: int, x: Tensor, *context: Any) -> Tensor:
        if not self.deploy:
            return super().run_blocks(index, x, *context)
        # Cut once for all blocks: they look at one window at a time.
        blocks, window = self.stages[index], self.arch.windows[index]
        if self.grid_mode == 'resize':
            rows, columns = (spans(n, s) for n, s in zip(x.shape[1:3], window, strict=True))
        elif self.grid_mode == 'strict' or not any_size(*x.shape[1:3]):
            rows, columns = (cuts(n, s) for n, s in zip(x.shape[1:3], window, strict=True))
        else:
            return self._filled_up(blocks, x, window)

        def run(part: Tensor, window: tuple[int, int]) -> Tensor:
            h, w = window
            part = part.unflatten(1, (-1, h)).unflatten(3, (-1, w)).transpose(2, 3)
            # Blocks write over it, so it is a copy always.
            windows = part.clone(memory_format=torch.contiguous_format)
            tokens = windows.flatten(3, 4).flatten(0, 2)
            for block in blocks:
                tokens = block(tokens, window)
            return tokens.view(part.shape).transpose(2, 3).flatten(3, 4).flatten(1, 2)

        return by_parts(x, rows, columns, run)

    @staticmethod
    def _filled_up(blocks: nn.Module, x: Tensor, window: tuple[int, int]) -> Tensor:
        """Run blocks in windows of one size, for graphs, whatever the size of the map."""
        size = (x.shape[1], x.shape[2])
        shape = counts(size, window)
        mask = mask_of(size, window, shape, like=x).flatten(1).repeat(x.shape[0], 1)
        tokens = cut(x.permute(0, 3, 1, 2), window, shape).flatten(2).transpose(1, 2)
        for block in blocks:
            tokens = block(tokens, window, mask)
        return join(tokens.transpose(1, 2).unflatten(2, window), size, shape).permute(0, 2, 3, 1)

    def deploy_state(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        state = {f'out_norms.{k}': v for k, v in self.out_norms.state_dict().items()}
        for i, part in enumerate(self.stem):
            state[f'stem.{i}.conv.weight'], state[f'stem.{i}.conv.bias'] = fuse_norm_after(
                part.conv.weight, part.conv.bias, *affine_of(part.norm)
            )
            state |= {f'stem.{i}.act.{k}': v for k, v in part.act.named_parameters()}
        for i, downsample in enumerate(self.downsamples):
            state |= {f'downsamples.{i}.{k}': v for k, v in downsample.deploy_state().items()}
        state |= self.deployed_blocks()
        lines = (
            f'the norms of {len(self.stem)} convolutions of the stem into them',
            f'the norms of {self.num_blocks} blocks into their first layers',
        )
        if self.grid_mode == 'resize':
            return state, lines
        return state, (
            *lines,
            f'offsets, centres and spreads of {self.num_blocks} gates into kernels',
        )
