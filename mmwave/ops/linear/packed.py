"""Matrices that stay as they are, laid once the way that products read them.

oneDNN reads a matrix in blocks. One that lies as torch lays it is copied into blocks by every call,
which takes a tenth of the time where few positions are multiplied with it. Our own kernels read
pairs, see :func:`paired`.
"""

import torch
from torch import Tensor

from ..kept import kept

COLUMNS = 32
"""Outputs that products of our own kernels take at a time."""


def packed(weight: Tensor) -> Tensor:
    """``weight`` (C_out, C_in) for products of oneDNN, which alone can read the result.

    It is :func:`~mmwave.ops.kept.kept`; a tensor that is no part of a parameter is returned as it
    is.
    """
    found = kept('oneDNN', lambda w: _reordered(w.contiguous()), weight)
    return weight if found is None else found


def _reordered(plain: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(plain)


def paired(weight: Tensor, columns: int) -> Tensor:
    """``weight`` (C_out, C_in) of bfloat16 for the products of our own kernels.

    These take ``columns`` outputs at a time and multiply pairs of inputs: the result is
    (C_out / columns, C_in / 2, columns, 2), two values to an ``int32``.
    """
    outputs, inputs = weight.shape
    pairs = weight.reshape(outputs // columns, columns, inputs // 2, 2).transpose(1, 2)
    return pairs.contiguous().view(torch.int32).squeeze(-1)


def constant_pairs(weight: Tensor) -> Tensor:
    """A matrix that stays as it is, :func:`paired` by :data:`COLUMNS`, and kept if possible."""
    found = kept('pairs', lambda w: paired(w, COLUMNS), weight)
    return paired(weight, COLUMNS) if found is None else found
