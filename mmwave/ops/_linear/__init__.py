"""A linear layer, with a GELU fused behind it where the backend can."""

from typing import Literal

from torch import Tensor

from ..backend import current_backend, select
from ..graphs import is_tracing
from ..overridable import overridable
from .onednn import linear_onednn
from .reference import linear_reference

_IMPLEMENTATIONS = {'onednn': linear_onednn, 'reference': linear_reference}
MIN_ONEDNN_MACS = 2**21
"""Multiply-accumulates below which oneDNN's call overhead exceeds torch's whole run time."""


@overridable
def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    gelu: Literal['none', 'tanh'] | None = None,
    constant: bool = False,
) -> Tensor:
    r"""Mix the channels of every position: :math:`y = W x + b`, or GELU of it.

    torch's own is the reference. On a CPU it calls a BLAS for products in float32: MKL in torch's
    packages for x86, which uses the widest vector instructions on Intel's processors alone. The
    convolutions of torch use oneDNN, which uses them wherever the processor has them. So does this
    op, except for small products (:data:`MIN_ONEDNN_MACS`).

    Args:
        x: (..., C_in).
        weight: (C_out, C_in).
        bias: (C_out,), or None for none.
        gelu: the ``approximate`` of a ``torch.nn.GELU`` that follows; None for no activation.
        constant: whether the weight is a parameter that does not change, as in a deploy form.
            oneDNN then reads a packed copy, made once, see :func:`~mmwave.ops.packed.packed`, which
            takes as much memory again.

    Returns:
        (..., C_out).

    Raises:
        ValueError: where the shapes do not fit each other; the message names them.
    """
    fits = weight.dim() == 2 and x.dim() > 0 and x.shape[-1] == weight.shape[1]
    if not fits or (bias is not None and bias.shape != weight.shape[:1]):
        raise ValueError(
            f'expected x (..., C_in), weight (C_out, C_in) and bias (C_out), got {tuple(x.shape)}, '
            f'{tuple(weight.shape)} and {None if bias is None else tuple(bias.shape)}'
        )
    small = not is_tracing() and x.numel() * len(weight) < MIN_ONEDNN_MACS
    if small and current_backend() == 'auto':
        return linear_reference(x, weight, bias, gelu=gelu)
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return select('linear', _IMPLEMENTATIONS, *tensors)(*tensors, gelu=gelu, constant=constant)


__all__ = ['linear', 'linear_reference']
