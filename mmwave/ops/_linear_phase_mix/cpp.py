"""``linear_phase_mix`` on the CPU by kernels in C++, see :mod:`mmwave.ops.extension`.

In bfloat16 one fused kernel multiplies and mixes, so that amplitudes and phases never go to memory.
Where that kernel cannot run, as in float32, a linear layer is followed by the kernel of
:func:`mmwave.ops.phase_mix`.
"""

import torch
from torch import Tensor

from .. import extension
from .._linear import linear
from .._phase_mix.cpp import phase_mix_cpp
from ..cache import cached
from ..graphs import is_watched
from ..packed import paired

LANES = 16
"""Pairs of channels that the fused kernel unfolds at a time."""
KERNEL_SIZE = 7
"""Length of the kernels along the axes that the fused kernel mixes by."""


def linear_phase_mix_cpp(
    x: Tensor, weight: Tensor, bias: Tensor, kernel_h: Tensor, kernel_w: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`mmwave.ops.linear_phase_mix`."""
    channels = x.shape[3]
    fits = channels % (2 * LANES) == 0 and kernel_h.shape[3] == KERNEL_SIZE
    if not fits or extension.cannot_multiply(x, weight, bias, kernel_h, kernel_w):
        maps = linear(x, weight, bias, constant=True).permute(0, 3, 1, 2).chunk(4, dim=1)
        p_h, p_w, a_h, a_w = maps
        return phase_mix_cpp(a_h, p_h, a_w, p_w, kernel_h, kernel_w, split=True, rectify=True)
    packed = [each for pair in zip(_packed(weight), _packed(bias), strict=True) for each in pair]
    c_first = x.contiguous().permute(0, 3, 1, 2)
    return torch.ops.mmwave_cpp.linear_phase_mix(c_first, *packed, kernel_h, kernel_w)


def _packed(parameter: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows of a weight or bias of the waves mixed along the width, and the height.

    In the order that the kernel reads: for each 16 pairs of channels, the amplitudes of the even
    channels, those of the odd channels, and then their phases.
    """

    def make(whole: Tensor) -> tuple[Tensor, Tensor]:
        p_h, p_w, a_h, a_w = whole.reshape(4, 2, -1, LANES, *whole.shape[1:]).unbind(0)
        # Each (even or odd, group, lane) -> (group, amplitude or phase, even or odd, lane)
        orders = (
            torch.stack([a, p]).movedim(2, 0).flatten(0, 3) for a, p in ((a_h, p_h), (a_w, p_w))
        )
        h, w = (t.contiguous() if t.dim() == 1 else paired(t, 4 * LANES) for t in orders)
        return h, w

    return cached('linear_phase_mix', make, parameter) or make(parameter)


def _unsupported(x: Tensor, *others: Tensor) -> str:
    for tensor in (x, *others):
        if not tensor.is_cpu:
            return 'it runs on the CPU'
        if tensor.dtype is not x.dtype or x.dtype not in extension.DTYPES:
            return f'it supports tensors of one dtype of {", ".join(map(str, extension.DTYPES))}'
    if is_watched():
        return 'a dispatch mode or transform is active'
    if torch.is_autocast_enabled('cpu'):
        dtype = torch.get_autocast_dtype('cpu')
        if dtype not in extension.DTYPES:
            return f'autocast casts to {dtype}'
    return extension.unavailable()


linear_phase_mix_cpp.unsupported = _unsupported  # type: ignore[attr-defined]
