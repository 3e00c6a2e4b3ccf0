"""GELU in place; inference only."""

from torch import Tensor

from ..backend import select
from .cpp import gelu_cpp, gelu_kernel
from .reference import gelu_reference

_IMPLEMENTATIONS = {'cpp': gelu_cpp, 'reference': gelu_reference}


def gelu_(x: Tensor, approximate: str = 'none') -> Tensor:
    r"""Apply GELU in place: :math:`x\,\Phi(x)`, with :math:`\Phi` the normal distribution function.

    torch's own is the reference. For the exact function of bfloat16 on a CPU there is a kernel,
    accurate to 2e-5, a hundredth of the rounding error of values near one; at -infinity it is zero.

    Args:
        x: any shape.
        approximate: as in ``torch.nn.GELU``: ``'none'`` or ``'tanh'``.

    Returns:
        ``x``.
    """
    return select('gelu_', _IMPLEMENTATIONS, x, approximate)(x, approximate)


__all__ = ['gelu_', 'gelu_kernel', 'gelu_reference']
