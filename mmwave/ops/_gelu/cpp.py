"""``gelu_`` on the CPU in bfloat16 by a kernel in C++, see :mod:`mmwave.ops.extension`."""

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .. import extension


def gelu_cpp(x: Tensor, approximate: str = 'none') -> Tensor:
    """See :func:`mmwave.ops.gelu_`."""
    torch.ops.mmwave_cpp.gelu_(x)
    increment_version(x)
    return x


def _unsupported(x: Tensor, approximate: str = 'none') -> str:
    if approximate != 'none':
        return f'it computes the exact GELU, not approximate={approximate!r}'
    if reason := extension.cannot_run(x):
        return reason
    return '' if x.is_contiguous() else 'x must be contiguous'


gelu_cpp.unsupported = _unsupported  # type: ignore[attr-defined]


def gelu_kernel(x: Tensor, approximate: str) -> bool:
    """Return whether the kernel supports a contiguous result of the dtype and device of ``x``.

    It is faster than the GELU that oneDNN fuses with a product.
    """
    return approximate == 'none' and not extension.cannot_run(x)
