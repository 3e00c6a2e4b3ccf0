"""``phase_mix`` on the CPU by a kernel in C++, see :mod:`mmwave.ops.extension`."""

from typing import Any

import torch
from torch import Tensor

from .. import extension
from ..extension import DTYPES
from ..graphs import is_watched
from .gradients import phase_mix_gradients


def _fake(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    split: bool,
    rectify: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    n, c, h, w = amplitude_h.shape
    maps = [amplitude_h.new_empty(n, h, w, c).permute(0, 3, 1, 2) for _ in range(2)]
    return maps[0], maps[1], amplitude_h.new_empty(n, c)


def _fake_backward(*tensors: Any) -> tuple[Tensor, ...]:
    *_, like, _, _, _, kernel_h, kernel_w, _, _ = tensors
    n, c, h, w = like.shape
    maps = [like.new_empty(n, h, w, c).permute(0, 3, 1, 2) for _ in range(4)]
    return *maps, torch.empty_like(kernel_h), torch.empty_like(kernel_w)


def _setup_context(ctx: Any, inputs: tuple, output: Any) -> None:
    *tensors, ctx.split, ctx.rectify = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, g_h: Tensor, g_w: Tensor, g_mean: Tensor) -> tuple:
    tensors = ctx.saved_tensors
    settings = ctx.split, ctx.rectify
    if torch.is_grad_enabled():  # create_graph=True: the kernel is not differentiable
        found = phase_mix_gradients(
            tensors,
            (g_h, g_w, g_mean),
            tensors[0].dtype,
            split=ctx.split,
            rectify=ctx.rectify,
        )
        return *found, None, None
    found = torch.ops.mmwave_cpp.phase_mix_backward(g_h, g_w, g_mean, *tensors, *settings)
    return *found, None, None


@extension.on_load
def _register() -> None:
    torch.library.register_fake('mmwave_cpp::phase_mix', _fake)
    torch.library.register_fake('mmwave_cpp::phase_mix_backward', _fake_backward)
    torch.library.register_autograd(
        'mmwave_cpp::phase_mix', _backward, setup_context=_setup_context
    )


def phase_mix_cpp(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    *,
    split: bool = False,
    rectify: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`mmwave.ops.phase_mix`."""
    return torch.ops.mmwave_cpp.phase_mix(
        amplitude_h, phase_h, amplitude_w, phase_w, kernel_h, kernel_w, split, rectify
    )


def _unsupported(amplitude_h: Tensor, *others: Tensor) -> str:
    maps, kernels = (amplitude_h, *others[:3]), others[3:]
    if any(t.device.type != 'cpu' for t in (*maps, *kernels)):
        return 'it runs on the CPU'
    wrong = any(t.dtype != amplitude_h.dtype for t in maps) or any(
        t.dtype not in DTYPES for t in (amplitude_h, *kernels)
    )
    if wrong:
        return f'it supports maps of one dtype of {", ".join(map(str, DTYPES))}'
    if amplitude_h.shape[1] % 2:
        return f'{amplitude_h.shape[1]} channels are not an even number'
    if any(t.stride(1) != 1 for t in maps):
        return 'the channels of a position must be contiguous (channels_last)'
    if not torch.compiler.is_compiling() and is_watched():
        return 'a dispatch mode or transform is active'
    return extension.unavailable()


phase_mix_cpp.unsupported = _unsupported  # type: ignore[attr-defined]
