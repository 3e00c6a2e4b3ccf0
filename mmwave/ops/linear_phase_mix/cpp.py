"""``linear_phase_mix`` on the CPU by kernels in C++, see :mod:`mmwave.ops.extension`.

In bfloat16 one kernel multiplies and mixes, so that amplitudes and phases never go to memory.
"""

import torch
from torch import Tensor

from .. import extension
from ..graphs import is_watched
from ..kept import kept
from ..linear.packed import paired
from .reference import linear_phase_mix_reference

LANES = 16
"""Pairs of channels that the kernel unfolds at a time."""
TAPS = 7
"""Its taps."""


def linear_phase_mix_cpp(
    x: Tensor, weight: Tensor, bias: Tensor, kernel_h: Tensor, kernel_w: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`mmwave.ops.linear_phase_mix`."""
    channels = x.shape[3]
    fits = channels % (2 * LANES) == 0 and kernel_h.shape[3] == TAPS
    if not fits or extension.cannot_multiply(x, weight, bias, kernel_h, kernel_w):
        return linear_phase_mix_reference(x, weight, bias, kernel_h, kernel_w)
    laid = [each for pair in zip(_laid(weight), _laid(bias), strict=True) for each in pair]
    c_first = x.contiguous().permute(0, 3, 1, 2)
    return torch.ops.mmwave_cpp.linear_phase_mix(c_first, *laid, kernel_h, kernel_w)


def _laid(parameter: Tensor) -> tuple[Tensor, Tensor]:
    """The rows of a weight or bias for the waves mixed along the width, and along the height.

    In the order that the kernel wants them: of 16 pairs of channels the amplitudes of those of even
    number, those of odd number, and then their phases.
    """

    def make(whole: Tensor) -> tuple[Tensor, Tensor]:
        p_h, p_w, a_h, a_w = whole.reshape(4, 2, -1, LANES, *whole.shape[1:]).unbind(0)
        # Each (even or odd, group, lane) -> (group, amplitude or phase, even or odd, lane)
        orders = (
            torch.stack([a, p]).movedim(2, 0).flatten(0, 3) for a, p in ((a_h, p_h), (a_w, p_w))
        )
        h, w = (t.contiguous() if t.dim() == 1 else paired(t, 4 * LANES) for t in orders)
        return h, w

    return kept('linear_phase_mix', make, parameter) or make(parameter)


def _unsupported(x: Tensor, *others: Tensor) -> str:
    for tensor in (x, *others):
        if not tensor.is_cpu:
            return 'it runs on the CPU'
        if tensor.dtype is not x.dtype or x.dtype not in extension.DTYPES:
            return f'it takes tensors of one type of {", ".join(map(str, extension.DTYPES))}'
    if is_watched():
        return 'operations are being recorded'
    return extension.unavailable()


linear_phase_mix_cpp.unsupported = _unsupported  # type: ignore[attr-defined]
