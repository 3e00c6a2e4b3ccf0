"""The definition of ``blend_``."""

from collections.abc import Sequence

from torch import Tensor

from .._linear import linear


def blend_reference(
    maps: Sequence[Tensor],
    factors: Sequence[Tensor],
    weight: Tensor,
    bias: Tensor,
    shortcut: Tensor,
) -> Tensor:
    """See :func:`mmwave.ops.blend_`."""
    total = maps[0].mul_(factors[0])
    for x, factor in zip(maps[1:], factors[1:], strict=True):
        total.addcmul_(x, factor)
    branch = linear(total, weight, bias, constant=True)
    # Under autocast the branch has a narrower dtype.
    return branch.add_(shortcut) if branch.dtype == shortcut.dtype else shortcut + branch
