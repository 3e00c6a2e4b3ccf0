"""``phase_mix`` in one Triton kernel forward and one backward, for CUDA devices.

The kernels are in ``triton_kernels.py``; Triton is imported when they first run.
"""

import importlib.util
import os
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from ..graphs import is_watched
from .gradients import phase_mix_gradients

_INSTALLED = importlib.util.find_spec('triton') is not None
# Triton's interpreter runs the kernels on the CPU. Triton reads the variable once as well.
_INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Elements of each map that a program holds, one for each thread of four warps: with more, its
# accumulators do not fit into registers.
_LANES = 128
# Positions that a program iterates over: the longest segment that leaves work for all
# multiprocessors. 2048 programs of the two directions are two to three waves on an H200.
_SEGMENTS = (64, 32, 16)
_PROGRAMS = 2048


def phase_mix_triton(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    *,
    split: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """See :func:`mmwave.ops.phase_mix`.

    Fastest where the channels of a position are contiguous (``channels_last``, or slices of one
    such map), and with ``split``. The mixed maps and the gradients are ``channels_last`` where
    ``amplitude_h``'s channels are contiguous, else in the default memory format. Under autocast the
    kernels are not cast, and the results have autocast's dtype, as a convolution's would.
    """
    maps = amplitude_h, phase_h, amplitude_w, phase_w
    dtype = _autocast(amplitude_h) or amplitude_h.dtype
    return _op(*maps, kernel_h, kernel_w, split, dtype)


def _unsupported(*tensors: Tensor) -> str:
    """Return the reason the kernels cannot run on the tensors here; '' if they can."""
    traced = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if traced or torch.compiler.is_exporting():
        return 'the reference is exported'
    if not _INSTALLED:
        return 'triton is not installed'
    if not torch.compiler.is_compiling() and is_watched():
        return 'a dispatch mode or transform is active'
    first, kernel = tensors[0], tensors[-1]
    for tensor in tensors:
        if tensor.device != first.device:
            return f'the tensors are on {first.device} and on {tensor.device}'
        if tensor.dtype not in _DTYPES:
            return f'{tensor.dtype} is not supported'
    if not (first.is_cuda or _INTERPRETED):
        return f'the tensors are on {first.device}, not on a CUDA device'
    # Autocast leaves parameters in float32, and a convolution casts them.
    expected = first.dtype if _autocast(first) is None else kernel.dtype
    for tensor, dtype in zip(tensors, [first.dtype] * 4 + [expected] * 2, strict=True):
        if tensor.dtype != dtype:
            return f'the tensors are of {dtype} and of {tensor.dtype}'
    if first.shape[1] % 2:
        return f'{first.shape[1]} channels are not an even number'
    return '' if first.numel() else 'the maps are empty'


phase_mix_triton.unsupported = _unsupported  # type: ignore[attr-defined]


def _autocast(x: Tensor) -> torch.dtype | None:
    """Return the dtype to which autocast casts a convolution of ``x``; None if it is off."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None


def _format(x: Tensor) -> torch.memory_format:
    return torch.channels_last if x.stride(1) == 1 else torch.contiguous_format


def _like(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Return an uninitialised dense map in the memory format of the results of ``x``."""
    return torch.empty(x.shape, dtype=dtype, device=x.device, memory_format=_format(x))


def _of_one_layout(*maps: Tensor) -> Sequence[Tensor]:
    """Return the maps, copied where their strides differ: a kernel accepts one set of strides."""
    if all(x.stride() == maps[0].stride() for x in maps):
        return maps
    return [x.contiguous(memory_format=_format(maps[0])) for x in maps]


def _kernels_of_one_layout(kernel_h: Tensor, kernel_w: Tensor) -> tuple[Tensor, Tensor]:
    """Return both kernels as (C, 2, K) with the same strides."""
    kernel_h, kernel_w = kernel_h.squeeze(2), kernel_w.squeeze(3)
    if kernel_h.stride() == kernel_w.stride():
        return kernel_h, kernel_w
    return kernel_h.contiguous(), kernel_w.contiguous()


class _Grid:
    """The launch grid for maps (N, C, H, W).

    Attributes:
        tile: lines and pairs of channels of a program.
        segments: positions that it iterates over, by direction: along the width, along the height.
        parts: programs of one image that share its pairs, by direction.
        programs: all programs, by direction.
    """

    def __init__(self, x: Tensor) -> None:
        images, channels, height, width = x.shape
        pairs = channels // 2
        # A warp reads 32 contiguous channels, or else 32 lines: at best one coalesced access either
        # way. Sixteen where that leaves no thread idle (48 pairs).
        wide = 4 if x.stride(1) != 1 else 16 if pairs % 32 == 16 else 32
        held = min(wide, 1 << (pairs - 1).bit_length())
        self.tile = (_LANES // held, held)
        blocks = -(-pairs // held)
        self.segments, self.parts, self.programs = [], [], []
        for lines, length in ((height, width), (width, height)):
            line_blocks = -(-lines // self.tile[0])
            for segment in _SEGMENTS:
                parts = line_blocks * -(-length // segment)
                if images * parts * blocks >= _PROGRAMS // 2:
                    break
            self.segments.append(segment)
            self.parts.append(parts)
            self.programs.append(images * parts * blocks)


def _guard(x: Tensor) -> Any:
    """Make the device of ``x`` current: Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()


@torch.library.custom_op('mmwave::phase_mix', mutates_args=())
def _op(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    split: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    from .triton_kernels import forward_kernel

    images, channels, height, width = amplitude_h.shape
    along_width, along_height = _like(amplitude_h, dtype), _like(amplitude_h, dtype)
    maps = _of_one_layout(amplitude_h, phase_h, amplitude_w, phase_w)
    kernels = _kernels_of_one_layout(kernel_h, kernel_w)
    grid = _Grid(maps[0])
    sums = torch.empty(
        (images, sum(grid.parts), channels), dtype=torch.float32, device=amplitude_h.device
    )
    with _guard(amplitude_h):
        forward_kernel[(sum(grid.programs),)](
            *maps,
            *kernels,
            along_width,
            along_height,
            sums,
            sum(grid.parts),
            grid.parts[0],
            channels // 2,
            height,
            width,
            *grid.segments,
            grid.programs[0],
            1 / (height * width),
            *maps[0].stride(),
            *along_width.stride(),
            *kernels[0].stride(),
            split,
            kernel_h.shape[3],
            *grid.tile,
            num_warps=_LANES // 32,
        )
    return along_width, along_height, sums.sum(dim=1).to(dtype)


@_op.register_fake
def _(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    split: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    mean = amplitude_h.new_empty(amplitude_h.shape[:2], dtype=dtype)
    return _like(amplitude_h, dtype), _like(amplitude_h, dtype), mean


@torch.library.custom_op('mmwave::phase_mix_backward', mutates_args=())
def _backward_op(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    along_width: Tensor,
    along_height: Tensor,
    mean: Tensor,
    split: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of the six inputs from those of the three outputs."""
    from .triton_kernels import backward_kernel

    _, channels, height, width = amplitude_h.shape
    gradients = [_like(amplitude_h, amplitude_h.dtype) for _ in range(4)]
    maps = _of_one_layout(amplitude_h, phase_h, amplitude_w, phase_w)
    kernels = _kernels_of_one_layout(kernel_h, kernel_w)
    along_width, along_height = _of_one_layout(along_width, along_height)
    grid = _Grid(maps[0])
    pair_blocks = -(-channels // 2 // grid.tile[1])
    parts = [
        torch.empty(
            (programs // pair_blocks, *kernels[0].shape),
            dtype=torch.float32,
            device=amplitude_h.device,
        )
        for programs in grid.programs
    ]
    with _guard(amplitude_h):
        backward_kernel[(sum(grid.programs),)](
            *maps,
            *kernels,
            along_width,
            along_height,
            mean,
            *gradients,
            *parts,
            channels // 2,
            height,
            width,
            *grid.segments,
            grid.programs[0],
            1 / (height * width),
            *maps[0].stride(),
            *along_width.stride(),
            *gradients[0].stride(),
            *mean.stride(),
            *kernels[0].stride(),
            split,
            kernel_h.shape[3],
            *grid.tile,
            num_warps=_LANES // 32,
        )
    to_kernels = [
        part.sum(dim=0).to(kernel.dtype).view(kernel.shape)
        for part, kernel in zip(parts, (kernel_h, kernel_w), strict=True)
    ]
    return (*gradients, *to_kernels)  # type: ignore[return-value]


@_backward_op.register_fake
def _(
    amplitude_h: Tensor,
    phase_h: Tensor,
    amplitude_w: Tensor,
    phase_w: Tensor,
    kernel_h: Tensor,
    kernel_w: Tensor,
    along_width: Tensor,
    along_height: Tensor,
    mean: Tensor,
    split: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    return (
        *(_like(amplitude_h, amplitude_h.dtype) for _ in range(4)),
        kernel_h.new_empty(kernel_h.shape),
        kernel_w.new_empty(kernel_w.shape),
    )  # type: ignore[return-value]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.split, ctx.dtype = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    if torch.is_grad_enabled():  # create_graph=True: the kernel is not differentiable
        found = phase_mix_gradients(ctx.saved_tensors, gradients, ctx.dtype, split=ctx.split)
        return *found, None, None
    return (*_backward_op(*ctx.saved_tensors, *gradients, ctx.split), None, None)


_op.register_autograd(_differentiate, setup_context=_keep)
