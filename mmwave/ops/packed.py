"""Constant matrices, packed once into the layout that matrix products read.

oneDNN reads a matrix in blocks and copies a plain one into blocks in every call, which takes a
tenth of the time where few positions are multiplied with it. Our own kernels read pairs, see
:func:`paired`.
"""

import torch
from torch import Tensor

from .cache import cached

COLUMNS = 32
"""Outputs that products of our own kernels compute at a time."""


def packed(weight: Tensor) -> Tensor:
    """Return ``weight`` (C_out, C_in) packed for oneDNN, which alone can read the result.

    The result is :func:`~mmwave.ops.cache.cached`; a tensor that is no part of a parameter is
    returned unchanged.
    """
    found = cached('oneDNN', lambda w: _reordered(w.contiguous()), weight)
    return weight if found is None else found


def _reordered(plain: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(plain)


def paired(weight: Tensor, columns: int) -> Tensor:
    """Return ``weight`` (C_out, C_in), bfloat16, packed for the products of our own kernels.

    These compute ``columns`` outputs at a time and multiply pairs of inputs: the result is
    (C_out / columns, C_in / 2, columns), two values of neighbouring inputs in each ``int32``.
    """
    outputs, inputs = weight.shape
    pairs = weight.reshape(outputs // columns, columns, inputs // 2, 2).transpose(1, 2)
    return pairs.contiguous().view(torch.int32).squeeze(-1)


def constant_pairs(weight: Tensor) -> Tensor:
    """Return a constant matrix :func:`paired` by :data:`COLUMNS`, cached where it can be."""
    found = cached('pairs', lambda w: paired(w, COLUMNS), weight)
    return paired(weight, COLUMNS) if found is None else found
