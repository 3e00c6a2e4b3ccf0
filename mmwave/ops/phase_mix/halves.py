"""``phase_mix`` by depthwise convolutions: plain PyTorch, and quick where grouped ones are slow.

The definition convolves with groups of two channels in and one out, for which libraries have no
kernel of their own. The first channels of all groups and the second ones are a map each; a group's
output is the sum of one depthwise convolution of either.
"""

import torch
from torch import Tensor

from ..conv2d import conv2d
from ..mean import mean_over


def phase_mix_halves(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    *,
    split: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`mmwave.ops.phase_mix`."""
    pairs = ((amplitude_h, phase_h, kernel_h), (amplitude_w, phase_w, kernel_w))
    along_width, along_height = (
        mixed(a * p.cos(), a * p.sin(), kernel, split=split) for a, p, kernel in pairs
    )
    mean = mean_over(along_width, 2, 3) + mean_over(along_height, 2, 3)
    return along_width, along_height, mean


def mixed(
    real: Tensor, imaginary: Tensor, kernel: Tensor, *, split: bool, recorded: bool = True
) -> Tensor:
    """One of the two mixed maps, of the parts of its waves.

    ``recorded``: whether a graph may be recorded, so that nothing is to be written over.
    """
    channels = real.shape[1]
    padding = (kernel.shape[2] // 2, kernel.shape[3] // 2)
    first, second = (
        conv2d(
            torch.cat([_half(part, number, split) for part in (real, imaginary)], dim=1),
            kernel[:, number : number + 1],
            padding=padding,
            groups=channels,
        )
        for number in (0, 1)
    )
    return first + second if recorded else first.add_(second)


def _half(x: Tensor, number: int, split: bool) -> Tensor:
    half = x.shape[1] // 2
    return x.narrow(1, number * half, half) if split else x[:, number::2]


def _unsupported(amplitude_h: Tensor, *others: Tensor) -> str:
    channels = amplitude_h.shape[1]
    return f'{channels} channels cannot be halved' if channels % 2 else ''


phase_mix_halves.unsupported = _unsupported  # type: ignore[attr-defined]
