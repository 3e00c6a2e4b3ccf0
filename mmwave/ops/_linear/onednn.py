"""Matrix products on the CPU by oneDNN, in float32 and, inference only, in bfloat16.

In a graph of ``torch.compile`` they are a custom op: inductor leaves products to MKL, except those
whose weights are frozen.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .._gelu import gelu_, gelu_kernel
from ..graphs import is_watched, needs_grad
from ..packed import packed
from .reference import linear_reference

DTYPES = (torch.float32, torch.bfloat16)


def unsupported(x: Tensor, weight: Tensor, *others: Tensor) -> str:
    """Return the reason oneDNN cannot multiply these tensors here; '' if it can."""
    tensors = (x, weight, *others)
    for tensor in tensors:  # no generator: this runs for every layer
        if not tensor.is_cpu or tensor.layout is not torch.strided:
            return f'it runs on the CPU, not on {tensor.device.type}'
        if tensor.dtype is not x.dtype or x.dtype not in DTYPES:
            given = ', '.join(str(t.dtype) for t in tensors)
            return f'it supports float32 or bfloat16, not {given}'
    compiling = torch.compiler.is_compiling()
    # Dispatch modes, which count or fake operators, handle torch's own.
    if torch.compiler.is_exporting() or (not compiling and is_watched()):
        return 'a graph is being exported, or a dispatch mode or transform is active'
    if torch.is_autocast_enabled('cpu'):
        return 'autocast is on'
    # torch's own product of bfloat16 is oneDNN's; the gradients here are for float32.
    if x.dtype == torch.bfloat16 and (
        compiling or needs_grad(*tensors) or not torch.ops.mkldnn._is_mkldnn_bf16_supported()
    ):
        return 'bfloat16 needs CPU support, and no autograd or compile'
    if not _is_there():
        return 'torch is built without oneDNN, or it is switched off'
    # Not checked while compiling, where sizes may be dynamic.
    return '' if compiling or (x.numel() and weight.numel()) else 'a tensor is empty'


def _is_there() -> bool:
    built = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return bool(built and torch.backends.mkldnn.enabled)


# What torch.compiler.assume_constant_result does to a function, without importing dynamo, which
# takes as long as importing torch itself.
_is_there._dynamo_marked_constant = True  # type: ignore[attr-defined]


def linear_onednn(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    gelu: str | None = None,
    constant: bool = False,
) -> Tensor:
    """See :func:`mmwave.ops.linear`."""
    compiling = torch.compiler.is_compiling()
    if needs_grad(x, weight, bias):
        y = _op(x, weight, bias, None, False) if compiling else _Linear.apply(x, weight, bias)
        return y if gelu is None else F.gelu(y, approximate=gelu)
    return (_op if compiling else product)(x, weight, bias, gelu, constant)


linear_onednn.unsupported = unsupported  # type: ignore[attr-defined]


def product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    gelu: str | None = None,
    constant: bool = False,
) -> Tensor:
    """Compute :func:`linear_onednn` without autograd."""
    if gelu is not None and gelu_kernel(x, gelu):
        return gelu_(product(x, weight, bias, constant=constant))
    if constant:
        weight = packed(weight)
    if weight.is_mkldnn:
        return _pointwise(x, weight, bias, gelu)
    if not (weight.is_contiguous() or weight.t().is_contiguous()):
        weight = weight.contiguous()  # oneDNN is a hundred times slower with other strides
    transposed = x.dim() == 2 and x.stride(0) == 1 < x.stride(1)
    if transposed and weight.stride(1) == 1 and gelu is None:
        # oneDNN copies a transposed first factor, but reads a transposed second one in place.
        y = product(weight, x).t().contiguous()
        return y if bias is None else y.add_(bias)
    return _pointwise(x, weight, bias, gelu)


def _pointwise(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: str | None) -> Tensor:
    bias = None if bias is None else bias.contiguous()  # oneDNN ignores strides of a bias
    name, approximate = ('none', '') if gelu is None else ('gelu', gelu)
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], approximate)


class _Linear(torch.autograd.Function):
    """The gradients are products of this kind as well, and so differentiable themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(ctx, gradient, linear_onednn)


def _gradients(
    ctx: Any, gradient: Tensor, multiply: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, weight and bias; ``multiply(x, weight)`` is a linear layer."""
    x, weight = ctx.saved_tensors
    rows, columns = (t.reshape(-1, t.shape[-1]).t() for t in (gradient, x))
    of_x = of_weight = of_bias = None
    if ctx.needs_input_grad[0]:
        of_x = multiply(gradient, weight.t())
    if ctx.needs_input_grad[1]:
        of_weight = product_transposed(rows, columns, multiply)
    if ctx.needs_input_grad[2]:
        of_bias = rows.sum(1)
    return of_x, of_weight, of_bias


def product_transposed(
    left: Tensor,
    right: Tensor,
    multiply: Callable[[Tensor, Tensor], Tensor] = linear_onednn,
) -> Tensor:
    """Return ``left @ right.T``, the gradient of a matrix; differentiable where ``multiply`` is."""
    # The smaller one on the left, which oneDNN copies to another layout.
    if len(left) <= len(right):
        return multiply(left, right)
    return multiply(right, left).t()


@torch.library.custom_op('mmwave::linear', mutates_args=(), device_types='cpu')
def _op(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: str | None, constant: bool) -> Tensor:
    """Compute :func:`product` as a custom op, which sees the actual sizes only when it runs."""
    if x.numel() and weight.numel():
        return product(x, weight, bias, gelu, constant)
    return linear_reference(x, weight, bias, gelu=gelu)


@_op.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, gelu: str | None, constant: bool) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]))


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs[:2])


def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    found = _gradients(ctx, gradient, lambda x, weight: _op(x, weight, None, None, False))
    return *found, None, None


_op.register_autograd(_differentiate, setup_context=_keep)
