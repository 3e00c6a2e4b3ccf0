"""``axial_sample`` on the CPU by a kernel in C++, see :mod:`mmwave.ops.extension`."""

from typing import Any

import torch
from torch import Tensor

from .. import extension
from ..extension import DTYPES
from ..graphs import is_watched
from .gradients import axial_sample_gradients


def _empty_channels_last(like: Tensor) -> Tensor:
    n, c, h, w = like.shape
    return like.new_empty(n, h, w, c).permute(0, 3, 1, 2)


def _fake_backward(gradient: Tensor, x: Tensor, offsets: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    return _empty_channels_last(x), _empty_channels_last(offsets)


def _setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
    x, offsets, ctx.dim = inputs
    ctx.save_for_backward(x, offsets)


def _backward(ctx: Any, gradient: Tensor) -> tuple:
    x, offsets = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph=True: the kernel is not differentiable
        return *axial_sample_gradients(x, offsets, gradient, ctx.dim), None
    return *torch.ops.mmwave_cpp.axial_sample_backward(gradient, x, offsets, ctx.dim), None


@extension.on_load
def _register() -> None:
    torch.library.register_fake(
        'mmwave_cpp::axial_sample', lambda x, offsets, dim: _empty_channels_last(x)
    )
    torch.library.register_fake('mmwave_cpp::axial_sample_backward', _fake_backward)
    torch.library.register_autograd(
        'mmwave_cpp::axial_sample', _backward, setup_context=_setup_context
    )


def axial_sample_cpp(x: Tensor, offsets: Tensor, dim: int) -> Tensor:
    """See :func:`mmwave.ops.axial_sample`."""
    return torch.ops.mmwave_cpp.axial_sample(x, offsets, dim)


def _unsupported(x: Tensor, offsets: Tensor, dim: int) -> str:
    if x.device.type != 'cpu' or offsets.device.type != 'cpu':
        return 'it runs on the CPU'
    if x.dtype not in DTYPES or offsets.dtype not in DTYPES:
        return f'it supports {", ".join(map(str, DTYPES))}'
    if x.stride(1) != 1:
        return 'the channels of a position must be contiguous (channels_last)'
    if not torch.compiler.is_compiling() and is_watched():
        return 'a dispatch mode or transform is active'
    return extension.unavailable()


axial_sample_cpp.unsupported = _unsupported  # type: ignore[attr-defined]
