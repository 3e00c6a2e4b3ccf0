"""``gelu_`` on the CPU by a kernel in C++, see :mod:`mmwave.ops.extension`."""

import torch
from torch import Tensor
from torch.autograd.graph import increment_version

from .. import extension


def gelu_cpp(x: Tensor) -> Tensor:
    """See :func:`mmwave.ops.gelu_`."""
    torch.ops.mmwave_cpp.gelu_(x)
    increment_version(x)
    return x


def _unsupported(x: Tensor) -> str:
    if reason := extension.cannot_run(x):
        return reason
    return '' if x.is_contiguous() else 'values must lie side by side'


gelu_cpp.unsupported = _unsupported  # type: ignore[attr-defined]


def gelu_kernel(x: Tensor, approximate: str) -> bool:
    """Whether the kernel takes what is computed of ``x``, in its type and in memory of its own.

    It is faster than the GELU that oneDNN ends a product in.
    """
    return approximate == 'none' and not extension.cannot_run(x)
