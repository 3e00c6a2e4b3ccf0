"""``linear_phase_mix`` on CPUs without a kernel: plain PyTorch, phases and amplitudes apart.

Slices of one product's rows are read at a quarter of the speed, and allocating memory for results
costs several times their arithmetic; so there is one product for all phases and one for all
amplitudes, and what follows is computed in place.
"""

from torch import Tensor

from .._linear import linear
from .._phase_mix.even_odd import mix_axis
from ..graphs import is_watched, needs_grad
from ..mean import mean_over


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
    h = mix_axis(real_h, imaginary_h, kernel_h, split=True, in_place=True)
    w = mix_axis(real_w, imaginary_w, kernel_w, split=True, in_place=True)
    return h, w, mean_over(h, 2, 3) + mean_over(w, 2, 3)


def _unsupported(*tensors: Tensor) -> str:
    if any(t.device.type != 'cpu' for t in tensors):
        return 'it runs on the CPU'
    if any(t.dtype != tensors[0].dtype for t in tensors):
        return 'it supports tensors of one dtype'
    if needs_grad(*tensors):
        return 'it is inference only, and autograd is on'
    return 'a dispatch mode or transform is active' if is_watched() else ''


linear_phase_mix_parts.unsupported = _unsupported  # type: ignore[attr-defined]
