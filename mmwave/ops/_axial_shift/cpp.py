"""``axial_shift`` on the CPU by a kernel in C++, see :mod:`mmwave.ops.extension`."""

from typing import Any

import torch
from torch import Tensor

from .. import extension
from ..graphs import is_watched

DTYPES = (torch.float32, torch.bfloat16, torch.float16)
"""Dtypes that the kernel copies."""


def _fake(x: Tensor, offsets: list[int], dim: int) -> Tensor:
    n, c, h, w = x.shape
    if x.stride(1) == 1:
        return x.new_empty(n, h, w, c).permute(0, 3, 1, 2)
    return x.new_empty(n, c, h, w)


def _setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
    x, ctx.offsets, ctx.dim = inputs
    ctx.channels_last = x.stride(1) == 1


def _backward(ctx: Any, gradient: Tensor) -> tuple:
    layout = torch.channels_last if ctx.channels_last else torch.contiguous_format
    back = [-offset for offset in ctx.offsets]
    gradient = gradient.contiguous(memory_format=layout)
    return torch.ops.mmwave_cpp.axial_shift(gradient, back, ctx.dim), None, None


@extension.on_load
def _register() -> None:
    torch.library.register_fake('mmwave_cpp::axial_shift', _fake)
    torch.library.register_autograd(
        'mmwave_cpp::axial_shift', _backward, setup_context=_setup_context
    )


def axial_shift_cpp(x: Tensor, offsets: tuple[int, ...], dim: int) -> Tensor:
    """See :func:`mmwave.ops.axial_shift`."""
    return torch.ops.mmwave_cpp.axial_shift(x, offsets, dim)


def _unsupported(x: Tensor, offsets: tuple[int, ...], dim: int) -> str:
    if x.device.type != 'cpu':
        return 'it runs on the CPU'
    if x.dtype not in DTYPES:
        return f'it supports {", ".join(map(str, DTYPES))}, not {x.dtype}'
    if 1 not in (x.stride(1), x.stride(3)):
        return 'the channels of a position, or its row, must be contiguous'
    if not torch.compiler.is_compiling() and is_watched():
        return 'a dispatch mode or transform is active'
    return extension.unavailable()


axial_shift_cpp.unsupported = _unsupported  # type: ignore[attr-defined]
