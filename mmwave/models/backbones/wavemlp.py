"""Wave-MLP.

Paper: Tang, Han, Guo, Xu, Li, Xu, Wang: An Image Patch is a Wave: Phase-Aware Vision MLP, CVPR
2022, arXiv:2111.12294.
Published code: huawei-noah/Efficient-AI-Backbones at commit f90e129,
``wavemlp_pytorch/models/wavemlp.py`` (Apache-2.0).

Every position of the map is a wave with an amplitude and a phase, both computed from its own
features. Waves are unfolded into real and imaginary parts and summed over seven neighbours of a row
and of a column, so that the weight of a neighbour depends on the content of both through their
phases. The two sums and a plain channel projection are blended per channel by weights computed from
the whole image, and a channel MLP follows. Four stages with strides 4, 8, 16 and 32 make a pyramid;
no part of it knows the image's size.

Shapes: N images, C channels, H x W positions of the map.

Kept from the release, since its weights were trained so:
- the phase estimators end in BatchNorm and ReLU in every variant, those with GroupNorm included;
- real and imaginary parts are stacked and mixed by a grouped convolution whose output g reads the
  stacked channels 2g and 2g + 1 (see :func:`mmwave.ops.phase_mix`);
- the stem pads two pixels to a kernel of seven with stride four: an image 333 pixels wide gives 83
  columns;
- ``m`` and ``b`` have no norm in the stem and the downsamples.

Differences from the published release: names of parameters; dense outputs and classification are
one class; the depthwise phase estimator of ``t-dw`` is offered for every size (``s-dw``, ``m-dw``,
``b-dw``). Published weights, converted by ``tools/convert_checkpoint.py``, give the same outputs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmwave.deploy.fuse import fuse_norm_after, fuse_norm_before
from mmwave.models.layers import (
    Affine,
    ChannelMLP,
    Conv2d,
    ConvEmbed,
    DropPath,
    Linear,
    LinearMLP,
    affine_of,
    build_norm,
)
from mmwave.models.layers.channel_mlp import blend_added, mlp_added, spare
from mmwave.models.layers.lean import keep, runner
from mmwave.models.layers.norm import NORMS
from mmwave.models.layers.pointwise import PointwiseConv
from mmwave.ops import linear, linear_phase_mix, phase_mix
from mmwave.ops.layout import channels_last
from mmwave.ops.mean import mean_over
from mmwave.registry import MODELS

from .base import MLPBackbone, drop_path_rates, per_stage, resolve_arch

STRIDES = (4, 8, 16, 32)
TAPS = 7
"""Positions, itself included, that a position is mixed with along each axis."""


@dataclass(frozen=True, kw_only=True)
class WaveMLPArch:
    """Sizes of a Wave-MLP.

    Attributes:
        depths: blocks of each of the four stages.
        dims: channels of each stage.
        mlp_ratios: hidden channels of each stage's channel MLP, in multiples of its channels.
        phase: how a phase is estimated: ``'fc'``, from the position itself, or ``'dw'``, from each
            channel's 3 x 3 neighbourhood.
        norm: ``'BN'`` or ``'GN'`` (one group), the norm in blocks and of the outputs.
        stem_norm: whether the stem and the downsamples end in a norm.
    """

    depths: Sequence[int]
    dims: Sequence[int]
    mlp_ratios: Sequence[int] = (4, 4, 4, 4)
    phase: Literal['fc', 'dw'] = 'fc'
    norm: Literal['BN', 'GN'] = 'GN'
    stem_norm: bool = True

    def __post_init__(self) -> None:
        for name in ('depths', 'dims', 'mlp_ratios'):
            object.__setattr__(self, name, per_stage(name, getattr(self, name), len(STRIDES)))
        if any(dim % 4 for dim in self.dims):
            raise ValueError(
                f'dims={self.dims} must be multiples of 4: the blend squeezes channels by 4'
            )
        if self.phase not in ('fc', 'dw'):
            raise ValueError(f"unknown phase {self.phase!r}: expected 'fc' or 'dw'")
        if self.norm not in NORMS:
            raise ValueError(f'unknown norm {self.norm!r}: expected one of {", ".join(NORMS)}')


# The factory functions of the release; its README calls t-dw "T*". No weights of b were published.
_T = WaveMLPArch(depths=(2, 2, 4, 2), dims=(64, 128, 320, 512), norm='BN')
_S = WaveMLPArch(depths=(2, 3, 10, 3), dims=(64, 128, 320, 512))
_M = WaveMLPArch(
    depths=(3, 4, 18, 3), dims=(64, 128, 320, 512), mlp_ratios=(8, 8, 4, 4), stem_norm=False
)
_B = WaveMLPArch(depths=(2, 2, 18, 2), dims=(96, 192, 384, 768), stem_norm=False)

ARCHS: Mapping[str, WaveMLPArch] = MappingProxyType(
    {
        't-dw': replace(_T, phase='dw'),  # WaveMLP_T_dw of the release
        't': _T,  # WaveMLP_T
        's': _S,  # WaveMLP_S
        'm': _M,  # WaveMLP_M
        'b': _B,  # WaveMLP_B
        's-dw': replace(_S, phase='dw'),
        'm-dw': replace(_M, phase='dw'),
        'b-dw': replace(_B, phase='dw'),
    }
)


def _halves(channels: int) -> Tensor:
    """The order of channels that ``phase_mix(split=True)`` takes: even ones, then odd ones."""
    return torch.cat([torch.arange(k, channels, 2) for k in (0, 1)])


class PhaseEstimator(nn.Module):
    """Estimate phases in radians, (N, C, H, W) -> (N, C, H, W), none below zero.

    A block runs it in two steps, ``conv`` beside its other projections, then ``finish``.
    """

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        if kind == 'fc':
            self.conv = PointwiseConv(channels, channels)
        else:
            self.conv = Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = build_norm('BN', channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.finish(self.conv(x))

    def finish(self, x: Tensor) -> Tensor:
        """What comes behind the convolution."""
        return self.act(self.norm(x))


class PhaseAwareTokenMixer(nn.Module):
    """The paper's PATM: mix rows and columns of (N, C, H, W) maps as waves."""

    def __init__(self, channels: int, phase: str, act_cfg: dict) -> None:
        super().__init__()
        self.amplitude_h = PointwiseConv(channels, channels, bias=False)
        self.amplitude_w = PointwiseConv(channels, channels, bias=False)
        self.channel = PointwiseConv(channels, channels, bias=False)
        self.phase_h = PhaseEstimator(channels, phase)
        self.phase_w = PhaseEstimator(channels, phase)
        self.kernel_h = nn.Parameter(torch.empty(channels, 2, 1, TAPS))
        self.kernel_w = nn.Parameter(torch.empty(channels, 2, TAPS, 1))
        self.reweight = ChannelMLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = PointwiseConv(channels, channels)
        for kernel in (self.kernel_h, self.kernel_w):
            nn.init.kaiming_uniform_(
                kernel, a=math.sqrt(5)
            )  # as torch fills a convolution's weight

    def forward(
        self, x: Tensor, norm: nn.Module | None = None, run: Callable[..., Any] = keep
    ) -> Tensor:
        """Mix ``norm(x)``; ``run`` is how, see :func:`mmwave.models.layers.lean.runner`."""
        maps = run(self.project, norm, x)
        return run(self.proj, self.mix, *maps, modules=[self])

    def project(self, x: Tensor) -> tuple[Tensor, ...]:
        """All that is computed of a position by itself: five maps, phases not finished yet."""
        return (
            self.amplitude_h(x),
            self.phase_h.conv(x),
            self.amplitude_w(x),
            self.phase_w.conv(x),
            self.channel(x),
        )

    def mix(self, a_h: Tensor, p_h: Tensor, a_w: Tensor, p_w: Tensor, c: Tensor) -> Tensor:
        """The five maps as waves, mixed and summed up: (N, C, H, W)."""
        h, w, mean = phase_mix(
            a_h,
            self.phase_h.finish(p_h),
            a_w,
            self.phase_w.finish(p_w),
            self.kernel_h,
            self.kernel_w,
        )
        pooled = (mean + mean_over(c, 2, 3))[..., None, None]
        # The release lays the three weights of a channel side by side: (N, C * 3, 1, 1).
        weights = self.reweight(pooled).unflatten(1, (-1, 3)).softmax(dim=2)
        weight_h, weight_w, weight_c = weights.unbind(dim=2)
        return (h * weight_h).addcmul(w, weight_w).addcmul(c, weight_c)


class WaveBlock(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(
        self,
        channels: int,
        mlp_ratio: int,
        arch: WaveMLPArch,
        *,
        drop_path: float,
        act_cfg: dict,
        lean: bool,
    ) -> None:
        super().__init__()
        self.run = runner(lean)
        self.norm1 = build_norm(arch.norm, channels)
        self.mixer = PhaseAwareTokenMixer(channels, arch.phase, act_cfg)
        self.norm2 = build_norm(arch.norm, channels)
        self.mlp = ChannelMLP(channels, mlp_ratio * channels, channels, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(x, self.norm1, self.run))
        return x + self.drop_path(self.mlp(x, self.norm2, self.run))

    def deploy_state(self) -> dict[str, Tensor]:
        """The tensors of :class:`FusedWaveBlock` that compute the same."""
        mixer, mlp = self.mixer, self.mlp
        before, matrices, offsets = affine_of(self.norm1), [], []
        halves = _halves(len(before[0]))
        state = {'mixer.kernel_h': mixer.kernel_h, 'mixer.kernel_w': mixer.kernel_w}
        in_matrix = mixer.phase_h.conv.groups == 1
        for name in ('h', 'w'):
            phase = getattr(mixer, f'phase_{name}')
            weight, bias = fuse_norm_after(
                phase.conv.weight, phase.conv.bias, *affine_of(phase.norm)
            )
            if in_matrix:
                matrices.append(weight[halves])
                offsets.append(bias[halves])
            else:
                state[f'mixer.phase_{name}.weight'] = weight[halves]
                state[f'mixer.phase_{name}.bias'] = bias[halves]
        plain = mixer.amplitude_h.weight[halves], mixer.amplitude_w.weight[halves]
        matrices += [*plain, mixer.channel.weight]
        offsets += [torch.zeros_like(before[1])] * 3
        weight, bias = torch.cat(matrices).flatten(1), torch.cat(offsets)
        if in_matrix:
            weight, bias = fuse_norm_before(weight, bias, *before)
        else:
            # Zeros that pad a map lie behind the norm: it cannot be folded into 3 x 3 kernels, so
            # all that follows takes what it gives, in its order of channels.
            state['affine1.weight'], state['affine1.bias'] = before
        state['mixer.merged.weight'], state['mixer.merged.bias'] = weight, bias
        hidden, weights = mixer.reweight.fc1, mixer.reweight.fc2
        state['mixer.reweight.fc1.weight'] = hidden.weight.flatten(1)
        state['mixer.reweight.fc1.bias'] = hidden.bias
        # (C * 3, ..) -> (3 * C, ..)
        for key, tensor in (('weight', weights.weight.flatten(1)), ('bias', weights.bias)):
            state[f'mixer.reweight.fc2.{key}'] = (
                tensor.unflatten(0, (-1, 3)).transpose(0, 1).flatten(0, 1)
            )
        state['mixer.proj.weight'] = mixer.proj.weight.flatten(1)
        state['mixer.proj.bias'] = mixer.proj.bias
        state['mlp.fc1.weight'], state['mlp.fc1.bias'] = fuse_norm_before(
            mlp.fc1.weight.flatten(1), mlp.fc1.bias, *affine_of(self.norm2)
        )
        state['mlp.fc2.weight'], state['mlp.fc2.bias'] = mlp.fc2.weight.flatten(1), mlp.fc2.bias
        for name, act in (('mlp.act', mlp.act), ('mixer.reweight.act', mixer.reweight.act)):
            state |= {f'{name}.{k}': v for k, v in act.named_parameters()}
        return state


class FusedTokenMixer(nn.Module):
    """The mixer's deploy form, shortcut included: (N, H, W, C) twice -> (N, H, W, C).

    One matrix gives phases, amplitudes and the third map. The channels of all but the third map are
    split, see :func:`mmwave.ops.phase_mix`.
    """

    def __init__(self, channels: int, phase: str, act_cfg: dict) -> None:
        super().__init__()
        self.merged = Linear(channels, (5 if phase == 'fc' else 3) * channels)
        if phase == 'dw':
            self.phase_h, self.phase_w = (
                Conv2d(channels, channels, 3, padding=1, groups=channels) for _ in range(2)
            )
            self.register_buffer('halves', _halves(channels), persistent=False)
        self.kernel_h = nn.Parameter(torch.empty(channels, 2, 1, TAPS))
        self.kernel_w = nn.Parameter(torch.empty(channels, 2, TAPS, 1))
        self.reweight = LinearMLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = Linear(channels, channels)
        self.phase = phase

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        h, w, mean, c = self.mixed(x)
        logits = self.reweight(mean + mean_over(c, 1, 2)).unflatten(1, (3, 1, 1, -1))
        maps = [h.permute(0, 2, 3, 1), w.permute(0, 2, 3, 1), c]
        return blend_added(shortcut, maps, logits.softmax(dim=1).unbind(dim=1), self.proj)

    def mixed(self, x: Tensor) -> tuple[Tensor, ...]:
        """Both maps of mixed waves (N, C, H, W), the mean of their sum, and the third map."""
        kernels, channels = (self.kernel_h, self.kernel_w), x.shape[3]
        weight, bias = self.merged.weight, self.merged.bias
        if self.phase == 'fc' and x.device.type == 'cpu' and spare(x):
            count = 4 * channels
            waves = linear_phase_mix(x, weight[:count], bias[:count], *kernels)
            return *waves, linear(x, weight[count:], bias[count:], constant=True)
        *maps, c = self.merged(x).split(channels, dim=3)
        c_first = [m.permute(0, 3, 1, 2) for m in maps]
        if self.phase == 'dw':
            split = x[..., self.halves].permute(0, 3, 1, 2)
            c_first = [self.phase_h(split), self.phase_w(split), *c_first]
        p_h, p_w, a_h, a_w = c_first
        return *phase_mix(a_h, p_h, a_w, p_w, *kernels, split=True, rectify=True), c


class FusedWaveBlock(nn.Module):
    """The block's deploy form, norms folded away: (N, H, W, C) -> (N, H, W, C)."""

    def __init__(self, channels: int, mlp_ratio: int, arch: WaveMLPArch, act_cfg: dict) -> None:
        super().__init__()
        self.norm1 = self._norm(channels, arch)
        self.affine1 = Affine(channels, channels_last=True) if arch.phase == 'dw' else nn.Identity()
        self.mixer = FusedTokenMixer(channels, arch.phase, act_cfg)
        self.norm2 = self._norm(channels, arch)
        self.mlp = LinearMLP(channels, mlp_ratio * channels, channels, act_cfg)

    @staticmethod
    def _norm(channels: int, arch: WaveMLPArch) -> nn.Module:
        """What is left of a norm whose scale and shift are folded: nothing of a batch norm."""
        return nn.Identity() if arch.norm == 'BN' else nn.GroupNorm(1, channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(self.affine1(_channels_first(self.norm1, x)), x)
        return mlp_added(x, _channels_first(self.norm2, x), self.mlp)


def _channels_first(module: nn.Module, x: Tensor) -> Tensor:
    """Run a module for (N, C, H, W) on a map (N, H, W, C)."""
    return module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


@MODELS.register_module()
class WaveMLP(MLPBackbone):
    """Wave-MLP as a pyramid of maps with strides 4, 8, 16 and 32.

    Takes images (N, in_channels, H, W) of any size from 32 x 32 up and gives one map per entry of
    ``out_indices``, each through an output norm of its own; ``stage_info`` tells channels and
    strides. The published classifier is ``out_indices=(3,)`` with average pooling and a linear
    head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`WaveMLPArch`.
        in_channels: channels of the images.
        out_indices: stages to output, increasing; negative ones count from the last.
        drop_path_rate: probability to drop the last block's branches in training; it grows linearly
            from 0 over the blocks of all stages.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        norm_eval: keep every batch norm in eval mode during training.
        with_cp: compute activations again in the backward pass instead of storing them.
        lean: compute norms, activations, waves and their mixing again in the backward pass; see
            :class:`MLPBackbone`.
        deploy: build the deploy form: norms folded, the five projections of a block merged into
            one, channels last in memory. It is for inference and takes the weights that
            :func:`mmwave.deploy.to_deploy` makes.
        act_cfg: activation of the channel MLPs and the blend. Published: GELU; weights converted
            from MindSpore need ``dict(type='GELU', approximate='tanh')``.
        init_cfg: mmengine init config; see :class:`MLPBackbone`.

    Raises:
        ValueError: for an unknown arch, ``out_indices``, ``frozen_stages`` or ``drop_path_rate``
            out of range, and in ``forward`` for an image smaller than 32 x 32.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(type='GELU')})
    form_marks = ('.mixer.proj.weight', '.mixer.channel.weight')

    def __init__(
        self,
        arch: str | dict | WaveMLPArch = 't',
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
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
        super().__init__(
            channels=sizes.dims,
            strides=STRIDES,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            lean=lean,
            deploy=deploy,
            init_cfg=init_cfg,
        )
        self.arch = sizes
        self.in_channels = in_channels
        self.act_cfg = dict(act_cfg or dict(type='GELU'))

        def embed(i: int, **conv: int) -> ConvEmbed:
            channels = sizes.dims[i - 1] if i else in_channels
            norm = None if not sizes.stem_norm else build_norm(sizes.norm, sizes.dims[i])
            if deploy and sizes.norm == 'BN':
                norm = None
            return ConvEmbed(channels, sizes.dims[i], norm=norm, **conv)

        def block(i: int, drop_path: float) -> nn.Module:
            sides = sizes.dims[i], sizes.mlp_ratios[i], sizes
            if deploy:
                return FusedWaveBlock(*sides, act_cfg=self.act_cfg)
            return WaveBlock(*sides, drop_path=drop_path, act_cfg=self.act_cfg, lean=lean)

        rates = drop_path_rates(drop_path_rate, sizes.depths)
        stages = range(self.num_stages)
        self.stem = embed(0, kernel_size=7, stride=4, padding=2)
        self.downsamples = nn.ModuleList(
            embed(i, kernel_size=3, stride=2, padding=1) for i in stages[1:]
        )
        self.stages = nn.ModuleList(
            nn.Sequential(*(block(i, rate) for rate in rates[i])) for i in stages
        )
        self.out_norms = nn.ModuleDict(
            {str(i): build_norm(sizes.norm, sizes.dims[i]) for i in self.out_indices}
        )
        self.freeze()

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, in_channels, H, W) to the levels that ``stage_info`` describes."""
        self.check_input(x)
        # Channels last in memory, where a map is a matrix for all that mixes channels alone.
        return super().forward(channels_last(x))

    def run_blocks(self, index: int, x: Tensor, *context: Any) -> Tensor:
        if not self.deploy:
            return super().run_blocks(index, x)
        return super().run_blocks(index, x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)

    def deploy_state(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        state = {f'out_norms.{k}': v for k, v in self.out_norms.state_dict().items()}
        parts: dict[str, nn.Module] = {'stem': self.stem}
        parts |= {f'downsamples.{i}': part for i, part in enumerate(self.downsamples)}
        folded = 0
        for name, part in parts.items():
            weight, bias = part.conv.weight, part.conv.bias
            if isinstance(part.norm, _BatchNorm):
                weight, bias = fuse_norm_after(weight, bias, *affine_of(part.norm))
                folded += 1
            elif self.arch.stem_norm:
                state |= {f'{name}.norm.{k}': v for k, v in part.norm.state_dict().items()}
            state[f'{name}.conv.weight'], state[f'{name}.conv.bias'] = weight, bias
        state |= self.deployed_blocks()
        merged = 5 if self.arch.phase == 'fc' else 3
        lines = (
            f'{merged} projections of each of {self.num_blocks} token mixers into one, with norms',
            f'the norms in front of {self.num_blocks} channel MLPs into their first layers',
        )
        return state, lines if not folded else (
            f'the norms of {folded} embeddings into their convolutions',
            *lines,
        )
