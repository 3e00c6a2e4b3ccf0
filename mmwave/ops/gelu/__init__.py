"""GELU over its input, for what no gradient is taken of."""

from torch import Tensor

from ..backend import select
from .cpp import gelu_cpp, gelu_kernel
from .reference import gelu_reference

_IMPLEMENTATIONS = {'cpp_bf16': gelu_cpp, 'reference': gelu_reference}


def gelu_(x: Tensor, approximate: str = 'none') -> Tensor:
    r"""GELU written over ``x``: :math:`x\,\Phi(x)`, with :math:`\Phi` of the normal distribution.

    torch's own is the reference. For the exact function of bfloat16 on a CPU there is a kernel,
    good to 2e-5, a hundredth of what values near one are rounded by; it gives zero for -infinity.

    Args:
        x: any shape.
        approximate: as of ``torch.nn.GELU``: ``'none'`` or ``'tanh'``.

    Returns:
        ``x``.
    """
    if approximate != 'none':
        return gelu_reference(x, approximate)
    return select('gelu_', _IMPLEMENTATIONS, x)(x)


__all__ = ['gelu_', 'gelu_kernel', 'gelu_reference']
