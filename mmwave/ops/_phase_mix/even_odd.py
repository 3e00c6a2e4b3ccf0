"""``phase_mix`` by depthwise convolutions: plain PyTorch, and fast where grouped ones are slow.

The definition is a convolution with groups of two channels in and one out, for which libraries have
no kernel of their own. The even and the odd channels form a map each; a group's output is the sum
of one depthwise convolution of each.
"""

import torch
from torch import Tensor

from .._conv2d import conv2d
from ..mean import mean_over


def phase_mix_even_odd(
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
        mix_axis(a * p.cos(), a * p.sin(), kernel, split=split) for a, p, kernel in pairs
    )
    mean = mean_over(along_width, 2, 3) + mean_over(along_height, 2, 3)
    return along_width, along_height, mean


def mix_axis(
    real: Tensor, imaginary: Tensor, kernel: Tensor, *, split: bool, in_place: bool = False
) -> Tensor:
    """Return the waves, given as their real and imaginary parts, mixed along one axis.

    ``in_place``: whether intermediate results may be overwritten, which autograd and tracing rule
    out.
    """
    channels = real.shape[1]
    padding = (kernel.shape[2] // 2, kernel.shape[3] // 2)
    even, odd = (
        conv2d(
            torch.cat([_channels(part, parity, split) for part in (real, imaginary)], dim=1),
            kernel[:, parity : parity + 1],
            padding=padding,
            groups=channels,
        )
        for parity in (0, 1)
    )
    return even.add_(odd) if in_place else even + odd


def _channels(x: Tensor, parity: int, split: bool) -> Tensor:
    """Return the even (``parity`` 0) or the odd (1) channels."""
    half = x.shape[1] // 2
    return x.narrow(1, parity * half, half) if split else x[:, parity::2]


def _unsupported(amplitude_h: Tensor, *others: Tensor) -> str:
    channels = amplitude_h.shape[1]
    return f'{channels} channels are not an even number' if channels % 2 else ''


phase_mix_even_odd.unsupported = _unsupported  # type: ignore[attr-defined]
