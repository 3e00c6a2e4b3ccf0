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
no part of it depends on the image's size.

Shapes: N images, C channels, H x W positions of the map.

Kept from the release, since its weights were trained so:
- the phase estimators end in BatchNorm and ReLU in every variant, those with GroupNorm included;
- real and imaginary parts are stacked and mixed by a grouped convolution whose output g reads the
  stacked channels 2g and 2g + 1 (see :func:`mmwave.ops.phase_mix`);
- the stem pads two pixels to a kernel of seven with stride four: an image 333 pixels wide becomes
  83 columns;
- ``m`` and ``b`` have no norm in the stem and the downsamples.

Differences from the published release: names of parameters; dense outputs and classification are
one class; the depthwise phase estimator of ``t-dw`` is offered for every size (``s-dw``, ``m-dw``,
``b-dw``). Published weights, converted by ``tools/convert_checkpoint.py``, give the same outputs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from mmwave.models.layers import (
    ChannelMLP,
    Conv2d,
    DropPath,
    PointwiseConv,
    blended,
    branch_weights,
    build_norm,
)
from mmwave.models.layers.norm import NORMS
from mmwave.ops import phase_mix
from mmwave.ops.mean import mean_over
from mmwave.registry import MODELS

from .arch import per_stage, resolve_arch
from .base import BackboneSettings
from .pyramid import (
    STRIDES,
    PyramidBackbone,
    check_blend,
    overlapping_downsample,
    overlapping_stem,
)

KERNEL_SIZE = 7
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
        check_blend(self.dims)
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


class PhaseEstimator(nn.Module):
    """Estimate phases in radians, (N, C, H, W) -> (N, C, H, W), none below zero."""

    def __init__(self, channels: int, kind: str) -> None:
        super().__init__()
        if kind == 'fc':
            self.conv = PointwiseConv(channels, channels)
        else:
            self.conv = Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm = build_norm('BN', channels)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.norm(self.conv(x)))


class PhaseAwareTokenMixer(nn.Module):
    """The paper's PATM: mix rows and columns of (N, C, H, W) maps as waves."""

    def __init__(self, channels: int, phase: str, act_cfg: dict) -> None:
        super().__init__()
        self.amplitude_h = PointwiseConv(channels, channels, bias=False)
        self.amplitude_w = PointwiseConv(channels, channels, bias=False)
        self.channel = PointwiseConv(channels, channels, bias=False)
        self.phase_h = PhaseEstimator(channels, phase)
        self.phase_w = PhaseEstimator(channels, phase)
        self.kernel_h = nn.Parameter(torch.empty(channels, 2, 1, KERNEL_SIZE))
        self.kernel_w = nn.Parameter(torch.empty(channels, 2, KERNEL_SIZE, 1))
        self.reweight = ChannelMLP(channels, channels // 4, 3 * channels, act_cfg)
        self.proj = PointwiseConv(channels, channels)
        for kernel in (self.kernel_h, self.kernel_w):
            nn.init.kaiming_uniform_(kernel, a=math.sqrt(5))  # as torch initialises a convolution's

    def forward(self, x: Tensor) -> Tensor:
        wave_h = self.amplitude_h(x), self.phase_h(x)
        wave_w = self.amplitude_w(x), self.phase_w(x)
        h, w, mean = phase_mix(*wave_h, *wave_w, self.kernel_h, self.kernel_w)
        c = self.channel(x)
        pooled = (mean + mean_over(c, 2, 3))[..., None, None]
        return self.proj(blended((h, w, c), branch_weights(self.reweight, pooled)))


class WaveBlock(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(
        self,
        channels: int,
        mlp_ratio: int,
        *,
        phase: str,
        norm: str,
        drop_path: float,
        act_cfg: dict,
    ) -> None:
        super().__init__()
        self.norm1 = build_norm(norm, channels)
        self.mixer = PhaseAwareTokenMixer(channels, phase, act_cfg)
        self.norm2 = build_norm(norm, channels)
        self.mlp = ChannelMLP(channels, mlp_ratio * channels, channels, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


@MODELS.register_module()
class WaveMLP(PyramidBackbone):
    """Wave-MLP as a pyramid of maps with strides 4, 8, 16 and 32.

    It accepts images (N, in_channels, H, W) of any size from 32 x 32 up and returns one map per
    entry of ``out_indices``, each through an output norm of its own; ``stage_info`` has channels
    and strides. The published classifier is ``out_indices=(3,)`` with average pooling and a linear
    head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`WaveMLPArch`.
        **settings: see :class:`BackboneSettings`.

    Raises:
        ValueError: for an unknown arch, a setting out of range, and in ``forward`` for an image
            smaller than 32 x 32.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS

    def __init__(
        self, arch: str | dict | WaveMLPArch = 't', **settings: Unpack[BackboneSettings]
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        super().__init__(sizes, **settings)
        norm = partial(build_norm, sizes.norm)

        def embed(make: Callable[..., nn.Module], c_in: int, c_out: int) -> nn.Module:
            return make(c_in, c_out, norm=norm(c_out) if sizes.stem_norm else None)

        def block(i: int, _: int, drop_path: float) -> WaveBlock:
            return WaveBlock(
                sizes.dims[i],
                sizes.mlp_ratios[i],
                phase=sizes.phase,
                norm=sizes.norm,
                drop_path=drop_path,
                act_cfg=self.act_cfg,
            )

        self.build(
            stem=partial(embed, overlapping_stem),
            downsample=partial(embed, overlapping_downsample),
            block=block,
            norm=norm,
        )
