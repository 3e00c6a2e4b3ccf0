"""A linear layer, with the activation behind it where that comes for free."""

from typing import Literal

from torch import Tensor

from ..backend import current_backend, select
from ..graphs import any_size
from .onednn import linear_onednn
from .packed import packed
from .reference import linear_reference

_IMPLEMENTATIONS = {'onednn': linear_onednn, 'reference': linear_reference}
LEAST = 2**21
"""Multiply-accumulates under which oneDNN takes longer to begin than torch's own to be done."""


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    gelu: Literal['none', 'tanh'] | None = None,
    constant: bool = False,
) -> Tensor:
    r"""Mix the channels of every position: :math:`y = W x + b`, or GELU of it.

    torch's own is the reference. On a CPU it asks a BLAS for products in float32, which is MKL in
    torch's packages for x86, whose widest instructions other makers' processors do not get; the
    convolutions of torch use oneDNN, which asks the processor. So does this, but for small products
    (:data:`LEAST`).

    Args:
        x: (..., C_in).
        weight: (C_out, C_in).
        bias: (C_out,), or None for none.
        gelu: the ``approximate`` of a ``torch.nn.GELU`` that follows; None for no activation.
        constant: whether the weight is a parameter that stays as it is, as in a deploy form. oneDNN
            is then given a copy laid its own way, which is made once, see
            :func:`~mmwave.ops.linear.packed.packed`, and takes as much memory again.

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
    if not any_size() and current_backend() == 'auto' and x.numel() * len(weight) < LEAST:
        return linear_reference(x, weight, bias, gelu=gelu)
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return select('linear', _IMPLEMENTATIONS, *tensors)(*tensors, gelu=gelu, constant=constant)


__all__ = ['linear', 'linear_reference', 'packed']
