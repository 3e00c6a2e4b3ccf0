"""The definition of ``linear_phase_mix``."""

from torch import Tensor

from .._linear import linear
from .._phase_mix import phase_mix


def linear_phase_mix_reference(
    x: Tensor, weight: Tensor, bias: Tensor, kernel_h: Tensor, kernel_w: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`mmwave.ops.linear_phase_mix`."""
    maps = linear(x, weight, bias, constant=True).permute(0, 3, 1, 2).chunk(4, dim=1)
    p_h, p_w, a_h, a_w = maps
    return phase_mix(a_h, p_h, a_w, p_w, kernel_h, kernel_w, split=True, rectify=True)
