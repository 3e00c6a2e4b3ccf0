"""Channels shifted along one image axis, the token mixing of AS-MLP and CycleMLP."""

from collections.abc import Sequence

from torch import Tensor

from ..backend import select
from ..overridable import overridable
from .cpp import axial_shift_cpp
from .reference import axial_shift_reference
from .slices import axial_shift_slices

_IMPLEMENTATIONS = {
    'cpp': axial_shift_cpp,
    'torch': axial_shift_slices,
    'reference': axial_shift_reference,
}


@overridable
def axial_shift(x: Tensor, offsets: Sequence[int], dim: int) -> Tensor:
    r"""Read every channel at its own offset along the height or the width.

    .. math:: y_c(p) = x_c(p + o_c)

    with zeros outside the map.

    Args:
        x: (N, C, H, W).
        offsets: :math:`o_c` in positions, one for each of the C channels; positive ones read below
            or to the right.
        dim: 2 for the height, 3 for the width.

    Returns:
        (N, C, H, W), in the memory format of ``x``.

    Raises:
        ValueError: for another axis, or another number of offsets than channels.

    Source: Chen et al., CycleMLP: A MLP-like Architecture for Dense Prediction, ICLR 2022,
    arXiv:2107.10224; ShoufaChen/CycleMLP ``cycle_mlp.py`` (class CycleFC). Lian et al., AS-MLP: An
    Axial Shifted MLP Architecture for Vision, ICLR 2022, arXiv:2107.08391; svip-lab/AS-MLP
    ``models/as_mlp.py`` (class AxialShift).
    """
    offsets = tuple(offsets)
    if x.dim() != 4 or len(offsets) != x.shape[1]:
        raise ValueError(
            f'expected a map (N, C, H, W) and C offsets, got {tuple(x.shape)} and {len(offsets)}'
        )
    check_dim(dim)
    return select('axial_shift', _IMPLEMENTATIONS, x, offsets, dim)(x, offsets, dim)


def check_dim(dim: int) -> None:
    """Raise ``ValueError`` unless ``dim`` is the height's or the width's."""
    if dim not in (2, 3):
        raise ValueError(f'dim={dim}: expected 2, the height, or 3, the width')


__all__ = ['axial_shift', 'axial_shift_reference', 'check_dim']
