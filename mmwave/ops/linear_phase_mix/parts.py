"""``linear_phase_mix`` on CPUs without a kernel: plain PyTorch, phases and amplitudes apart.

Slices of the rows that one product makes are read at a quarter of the speed, and results in new
memory cost several times their arithmetic; so there is a product for all phases and one for all
amplitudes, and what follows is written over them.
"""

from torch import Tensor

from ..graphs import is_recorded, is_watched
from ..linear import linear
from ..mean import mean_over
from ..phase_mix.halves import mixed


def linear_phase_mix_parts(
    x: Tensor, weight: Tensor, bias: Tensor, kernel_h: Tensor, kernel_w: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`mmwave.ops.linear_phase_mix`."""
    phase, amplitude = (
        linear(x, *part, constant=True).permute(0, 3, 1, 2)
        for part in zip(weight.chunk(2), bias.chunk(2), strict=True)
    )
    imaginary = phase.relu_().sin().mul_(amplitude)
    real = phase.cos_().mul_(amplitude)
    real_h, real_w = real.chunk(2, dim=1)
    imaginary_h, imaginary_w = imaginary.chunk(2, dim=1)
    h = mixed(real_h, imaginary_h, kernel_h, split=True, recorded=False)
    w = mixed(real_w, imaginary_w, kernel_w, split=True, recorded=False)
    return h, w, mean_over(h, 2, 3) + mean_over(w, 2, 3)


def _unsupported(*tensors: Tensor) -> str:
    if any(t.device.type != 'cpu' for t in tensors):
        return 'it is for the CPU'
    if any(t.dtype != tensors[0].dtype for t in tensors):
        return 'it takes tensors of one type'
    if is_recorded(*tensors):
        return 'autograd records operations'
    return 'operations are being watched' if is_watched() else ''


linear_phase_mix_parts.unsupported = _unsupported  # type: ignore[attr-defined]
