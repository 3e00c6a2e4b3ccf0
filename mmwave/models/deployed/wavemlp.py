"""Wave-MLP in deploy form: five projections merged into one, norms folded, channels last.

A block maps (N, H, W, C) to (N, H, W, C).
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_after, fuse_norm_before
from mmwave.models.layers import Affine, Conv2d, affine_of
from mmwave.models.layers.deployed import ConstantEmbed, ConstantLinear, ConstantMLP, add_blend
from mmwave.models.layers.inplace import may_overwrite
from mmwave.models.layers.norm import is_batch_norm
from mmwave.ops import linear, linear_phase_mix, phase_mix
from mmwave.ops.mean import mean_over

from . import ChannelsLastStage, Deployed


def _even_odd(channels: int) -> Tensor:
    """The order of channels that ``phase_mix(split=True)`` expects: even ones, then odd ones."""
    return torch.cat([torch.arange(k, channels, 2) for k in (0, 1)])


class FusedTokenMixer(nn.Module):
    """The token mixer, shortcut included: (N, H, W, C) twice -> (N, H, W, C).

    One matrix computes phases, amplitudes and the third map. The channels of all but the third map
    are split, see :func:`mmwave.ops.phase_mix`.

    Args:
        mixer: a ``PhaseAwareTokenMixer``.
    """

    def __init__(self, mixer: nn.Module) -> None:
        super().__init__()
        channels = mixer.proj.in_channels
        self.phase_in_matrix = _phase_in_matrix(mixer)
        self.merged = ConstantLinear(channels, (5 if self.phase_in_matrix else 3) * channels)
        if not self.phase_in_matrix:
            self.phase_h, self.phase_w = (
                Conv2d(channels, channels, 3, padding=1, groups=channels) for _ in range(2)
            )
            self.register_buffer('even_odd', _even_odd(channels), persistent=False)
        self.kernel_h, self.kernel_w = mixer.kernel_h, mixer.kernel_w
        self.reweight = ConstantMLP.like(mixer.reweight)
        self.proj = ConstantLinear(channels, channels)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        h, w, mean, c = self._mixed(x)
        logits = self.reweight(mean + mean_over(c, 1, 2)).unflatten(1, (3, 1, 1, -1))
        maps = [h.permute(0, 2, 3, 1), w.permute(0, 2, 3, 1), c]
        return add_blend(shortcut, maps, logits.softmax(dim=1).unbind(dim=1), self.proj)

    def _mixed(self, x: Tensor) -> tuple[Tensor, ...]:
        """Both maps of mixed waves (N, C, H, W), the mean of their sum, and the third map."""
        kernels, channels = (self.kernel_h, self.kernel_w), x.shape[3]
        weight, bias = self.merged.weight, self.merged.bias
        if self.phase_in_matrix and x.device.type == 'cpu' and may_overwrite(x):
            count = 4 * channels
            waves = linear_phase_mix(x, weight[:count], bias[:count], *kernels)
            return *waves, linear(x, weight[count:], bias[count:], constant=True)
        *maps, c = self.merged(x).split(channels, dim=3)
        c_first = [m.permute(0, 3, 1, 2) for m in maps]
        if not self.phase_in_matrix:
            split = x[..., self.even_odd].permute(0, 3, 1, 2)
            c_first = [self.phase_h(split), self.phase_w(split), *c_first]
        p_h, p_w, a_h, a_w = c_first
        return *phase_mix(a_h, p_h, a_w, p_w, *kernels, split=True, rectify=True), c


class FusedWaveBlock(nn.Module):
    """A block whose norms are folded: (N, H, W, C) -> (N, H, W, C).

    Args:
        block: a ``WaveBlock``.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        channels = block.mixer.proj.in_channels
        self.norm1, self.norm2 = (_without_affine(n) for n in (block.norm1, block.norm2))
        # Behind the norm 3 x 3 kernels pad by zeros: its shift cannot be folded into them.
        folded = _phase_in_matrix(block.mixer)
        self.affine1 = nn.Identity() if folded else Affine(channels, channels_last=True)
        self.mixer = FusedTokenMixer(block.mixer)
        self.mlp = ConstantMLP.like(block.mlp)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(self.affine1(_channels_first(self.norm1, x)), x)
        return self.mlp.add_to(x, _channels_first(self.norm2, x))

    @staticmethod
    def fold(block: nn.Module) -> dict[str, Tensor]:
        """The tensors of a ``WaveBlock`` in deploy form."""
        mixer = block.mixer
        before, matrices, offsets = affine_of(block.norm1), [], []
        even_odd = _even_odd(len(before[0]))
        state = {'mixer.kernel_h': mixer.kernel_h, 'mixer.kernel_w': mixer.kernel_w}
        in_matrix = _phase_in_matrix(mixer)
        for name in ('h', 'w'):
            phase = getattr(mixer, f'phase_{name}')
            weight, bias = fuse_norm_after(
                phase.conv.weight, phase.conv.bias, *affine_of(phase.norm)
            )
            if in_matrix:
                matrices.append(weight[even_odd])
                offsets.append(bias[even_odd])
            else:
                state[f'mixer.phase_{name}.weight'] = weight[even_odd]
                state[f'mixer.phase_{name}.bias'] = bias[even_odd]
        amplitudes = mixer.amplitude_h.weight[even_odd], mixer.amplitude_w.weight[even_odd]
        matrices += [*amplitudes, mixer.channel.weight]
        offsets += [torch.zeros_like(before[1])] * 3
        weight, bias = torch.cat(matrices).flatten(1), torch.cat(offsets)
        if in_matrix:
            weight, bias = fuse_norm_before(weight, bias, *before)
        else:
            state['affine1.weight'], state['affine1.bias'] = before
        state['mixer.merged.weight'], state['mixer.merged.bias'] = weight, bias
        state['mixer.proj.weight'] = mixer.proj.weight.flatten(1)
        state['mixer.proj.bias'] = mixer.proj.bias
        reweight = ConstantMLP.fold_reweight(mixer.reweight)
        state |= {f'mixer.reweight.{k}': v for k, v in reweight.items()}
        mlp = ConstantMLP.fold(block.mlp, block.norm2)
        return state | {f'mlp.{k}': v for k, v in mlp.items()}


def _phase_in_matrix(mixer: nn.Module) -> bool:
    """Whether phases are estimated from single positions, so that a matrix can do it."""
    return bool(mixer.phase_h.conv.kernel_size == (1, 1))


def _without_affine(norm: nn.Module) -> nn.Module:
    """What is left of a norm whose scale and shift are folded: nothing of a batch norm."""
    if is_batch_norm(norm):
        return nn.Identity()
    return nn.GroupNorm(norm.num_groups, norm.num_channels, eps=norm.eps, affine=False)


def _channels_first(module: nn.Module, x: Tensor) -> Tensor:
    """Run a module for (N, C, H, W) on a map (N, H, W, C)."""
    return module(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


PARTS: Mapping[str, type[Deployed]] = MappingProxyType(
    {'ConvEmbed': ConstantEmbed, 'WaveBlock': FusedWaveBlock}
)
MARKS = ('.mixer.proj.weight', '.mixer.channel.weight')
STAGE = ChannelsLastStage


def report(backbone: Any) -> tuple[str, ...]:
    """What is folded in a Wave-MLP."""
    merged, blocks = (5 if backbone.arch.phase == 'fc' else 3), backbone.num_blocks
    embeds = (backbone.stem, *backbone.downsamples)
    folded = sum(is_batch_norm(embed.norm) for embed in embeds)
    return (
        *([f'the norms of {folded} embeddings into their convolutions'] if folded else []),
        f'{merged} projections of each of {blocks} token mixers into one, with norms',
        f'the norms in front of {blocks} channel MLPs into their first layers',
    )
