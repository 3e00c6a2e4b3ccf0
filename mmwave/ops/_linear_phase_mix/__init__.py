"""A linear layer and ``phase_mix`` of its output: the larger part of Wave-MLP's token mixing."""

from torch import Tensor

from .._phase_mix import check_kernels
from ..backend import select
from .cpp import linear_phase_mix_cpp
from .parts import linear_phase_mix_parts
from .reference import linear_phase_mix_reference

_IMPLEMENTATIONS = {
    'cpp': linear_phase_mix_cpp,
    'torch': linear_phase_mix_parts,
    'reference': linear_phase_mix_reference,
}


def linear_phase_mix(
    x: Tensor, weight: Tensor, bias: Tensor, kernel_h: Tensor, kernel_w: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Project positions to amplitudes and phases and mix these, see :func:`mmwave.ops.phase_mix`.

    Args:
        x: (N, H, W, C), C even.
        weight: (4 C, C), constant, see :func:`mmwave.ops.linear`. Its outputs are the phases of the
            waves mixed along the width, those of the waves mixed along the height, and the
            amplitudes of either; of each first the channels 0, 2, 4, .., then 1, 3, 5, ..
            Phases below zero count as zero.
        bias: (4 C,).
        kernel_h: (C, 2, 1, K), taps along the width.
        kernel_w: (C, 2, K, 1), taps along the height.

    Returns:
        Two maps (N, C, H, W) and (N, C), as ``phase_mix`` returns them.

    Raises:
        ValueError: where the shapes do not fit each other; the message names them.
    """
    channels = x.shape[-1]
    if x.dim() != 4 or weight.shape != (4 * channels, channels) or bias.shape != (4 * channels,):
        raise ValueError(
            f'expected x (N, H, W, C), weight (4 C, C) and bias (4 C), got {tuple(x.shape)}, '
            f'{tuple(weight.shape)} and {tuple(bias.shape)}'
        )
    check_kernels(channels, kernel_h, kernel_w, split=True)
    tensors = (x, weight, bias, kernel_h, kernel_w)
    return select('linear_phase_mix', _IMPLEMENTATIONS, *tensors)(*tensors)


__all__ = ['linear_phase_mix', 'linear_phase_mix_reference']
