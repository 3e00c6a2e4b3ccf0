"""A channel MLP added to its shortcut in place; inference only."""

from typing import Literal

from torch import Tensor

from ..backend import select
from .cpp import mlp_add_cpp
from .reference import mlp_add_reference

_IMPLEMENTATIONS = {'cpp': mlp_add_cpp, 'reference': mlp_add_reference}


def mlp_add_(
    x: Tensor,
    source: Tensor,
    weight1: Tensor,
    bias1: Tensor | None,
    weight2: Tensor,
    bias2: Tensor | None,
    *,
    gelu: Literal['none', 'tanh'] = 'none',
) -> Tensor:
    r"""Add :math:`W_2\,\mathrm{GELU}(W_1 s + b_1) + b_2` to :math:`x` in place.

    Args:
        x: (P, C), P positions.
        source: (P, C_in), the input of the MLP: a norm of ``x``, or ``x`` itself.
        weight1: (C_hidden, C_in), constant; see :func:`mmwave.ops.linear`.
        bias1: (C_hidden,), or None.
        weight2: (C, C_hidden), constant.
        bias2: (C,), or None.
        gelu: the ``approximate`` of ``torch.nn.GELU``.

    Returns:
        ``x``.

    Raises:
        ValueError: where the shapes do not fit each other; the message names them.
    """
    fit = x.dim() == source.dim() == 2 and source.shape == (len(x), weight1.shape[1])
    fit = fit and weight2.shape == (x.shape[1], len(weight1))
    fit = fit and (bias1 is None or bias1.shape == weight1.shape[:1])
    if not fit or not (bias2 is None or bias2.shape == weight2.shape[:1]):
        raise ValueError(
            'expected x (P, C), source (P, C_in), weight1 (C_hidden, C_in), bias1 (C_hidden), '
            'weight2 (C, C_hidden) and bias2 (C), got '
            + ', '.join(
                'none' if t is None else str(tuple(t.shape))
                for t in (x, source, weight1, bias1, weight2, bias2)
            )
        )
    tensors = (x, source, weight1, bias1, weight2, bias2)
    return select('mlp_add_', _IMPLEMENTATIONS, *tensors, gelu)(*tensors, gelu=gelu)


__all__ = ['mlp_add_', 'mlp_add_reference']
