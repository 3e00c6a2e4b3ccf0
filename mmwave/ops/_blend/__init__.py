"""Branches of a block blended, projected and added to its shortcut; inference only."""

from collections.abc import Sequence

from torch import Tensor

from ..backend import select
from .cpp import blend_cpp
from .reference import blend_reference

_IMPLEMENTATIONS = {'cpp': blend_cpp, 'reference': blend_reference}


def blend_(
    maps: Sequence[Tensor],
    factors: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    shortcut: Tensor,
) -> Tensor:
    r"""Compute :math:`s + W \sum_m f_m x_m + b`; the first map :math:`x_0` is overwritten.

    Args:
        maps: each (N, H, W, C).
        factors: one for each map, (N, 1, 1, C).
        weight: (C, C), constant; see :func:`mmwave.ops.linear`.
        bias: (C,).
        shortcut: (N, H, W, C).

    Returns:
        (N, H, W, C), a new tensor or ``maps[0]``.

    Raises:
        ValueError: where there is no map, or the shapes do not fit each other; the message names
            them.
    """
    shape = shortcut.shape
    if not maps or len(shape) != 4 or [x.shape for x in maps] != [shape] * len(maps):
        shapes = [tuple(x.shape) for x in (*maps, shortcut)]
        raise ValueError(f'expected maps and a shortcut of one shape (N, H, W, C), got {shapes}')
    n, _, _, c = shape
    fit = [f.shape for f in factors] == [(n, 1, 1, c)] * len(maps)
    if not fit or weight.shape != (c, c) or bias.shape != (c,):
        given = [tuple(f.shape) for f in factors]
        raise ValueError(
            f'expected {len(maps)} factors {(n, 1, 1, c)}, weight {(c, c)} and bias {(c,)}, got '
            f'{given}, {tuple(weight.shape)} and {tuple(bias.shape)}'
        )
    tensors = (*maps, shortcut, *factors, weight, bias)
    return select('blend_', _IMPLEMENTATIONS, *tensors)(maps, factors, weight, bias, shortcut)


__all__ = ['blend_', 'blend_reference']
