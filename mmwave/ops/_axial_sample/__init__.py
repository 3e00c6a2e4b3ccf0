"""Channels sampled along one image axis at learned offsets, the token mixing of ActiveMLP."""

from torch import Tensor

from .._axial_shift import check_dim
from ..backend import select
from ..overridable import overridable
from .cpp import axial_sample_cpp
from .reference import axial_sample_reference
from .rows import axial_sample_rows

_IMPLEMENTATIONS = {
    'cpp': axial_sample_cpp,
    'torch': axial_sample_rows,
    'reference': axial_sample_reference,
}


@overridable
def axial_sample(x: Tensor, offsets: Tensor, dim: int) -> Tensor:
    r"""Sample every position at its own offset along the height or the width.

    With :math:`q = p + o_{g(c)}(p)` and :math:`f = q - \lfloor q \rfloor`,

    .. math:: y_c(p) = (1 - f)\, x_c(\lfloor q \rfloor) + f\, x_c(\lfloor q \rfloor + 1)

    with zeros outside the map: a sample fades to nothing over one position beyond either end. Both
    neighbours count, also one of weight zero, where NaN and infinity give NaN; so does an offset
    that is NaN or infinite. Places are computed in at least float32.

    Args:
        x: (N, C, H, W).
        offsets: (N, G, H, W) in positions, G a divisor of C; each of the G serves C / G consecutive
            channels. Positive ones read below or to the right.
        dim: 2 for the height, 3 for the width.

    Returns:
        (N, C, H, W).

    Raises:
        ValueError: for another axis, or where the shapes do not fit each other; the message names
            them.

    Source: Wei et al., Active Token Mixer, AAAI 2023, arXiv:2203.06108; microsoft/TokenMixers
    ``Active Token Mixer/models/activemlp.py`` (class ATMOp), which calls torchvision's
    ``deform_conv2d`` with offsets along one axis.
    """
    n, c, *size = x.shape
    groups = offsets.shape[1] if offsets.dim() == 4 else 0
    if x.dim() != 4 or not groups or offsets.shape != (n, groups, *size) or c % groups:
        raise ValueError(
            f'expected x (N, C, H, W) and offsets (N, G, H, W), G a divisor of C, got '
            f'{tuple(x.shape)} and {tuple(offsets.shape)}'
        )
    check_dim(dim)
    return select('axial_sample', _IMPLEMENTATIONS, x, offsets, dim)(x, offsets, dim)


__all__ = ['axial_sample', 'axial_sample_reference']
