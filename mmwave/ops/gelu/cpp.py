"""``gelu_`` on the CPU by a kernel in C++, see :mod:`mmwave.ops.extension`."""

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .. import extension
from ..graphs import is_recorded, is_watched


def gelu_cpp(x: Tensor) -> Tensor:
    """See :func:`mmwave.ops.gelu_`."""
    torch.ops.mmwave_cpp.gelu_(x)
    increment_version(x)
    return x


def _unsupported(x: Tensor) -> str:
    if x.device.type != 'cpu' or x.dtype != torch.bfloat16:
        return f'it takes bfloat16 on the CPU, not {x.dtype} on {x.device.type}'
    if not x.is_contiguous():
        return 'values must lie side by side'
    if torch.compiler.is_compiling() or is_recorded(x) or is_watched():
        return 'operations are being recorded'
    return extension.unavailable()


gelu_cpp.unsupported = _unsupported  # type: ignore[attr-defined]


def gelu_kernel(x: Tensor, approximate: str) -> bool:
    """Whether the kernel takes what is computed of ``x``, in its type and in memory of its own.

    It is faster than the GELU that oneDNN ends a product in.
    """
    if approximate != 'none' or x.dtype != torch.bfloat16:
        return False
    return not _unsupported(x if x.is_contiguous() else x.new_empty(0))
