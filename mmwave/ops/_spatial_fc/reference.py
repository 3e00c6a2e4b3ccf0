"""The definition of ``spatial_fc``: one batched matrix product."""

import torch
from torch import Tensor

from ..graphs import is_counted


def spatial_fc_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See :func:`mmwave.ops.spatial_fc`."""
    (n, channels, positions), sets = x.shape, weight.shape[0]
    if sets == 1 and x.stride(1) == 1:
        # A view of (N, P, C), whose channels are contiguous: a product from the left reads it in
        # place, the one below would copy it.
        rows, columns = weight.expand(n, -1, -1), x.transpose(1, 2)
        offset = None if bias is None else bias.transpose(0, 1)
        return _product(rows, columns, offset).transpose(1, 2)
    # Consecutive channels use consecutive matrices: (N * C/S, S, P) -> (S, N * C/S, P). A batched
    # product reads the transposed view in place; the input is not copied.
    rows = x.reshape(n * (channels // sets), sets, positions).transpose(0, 1)
    mixed = _product(rows, weight.transpose(1, 2), None if bias is None else bias[:, None])
    return mixed.transpose(0, 1).reshape(n, channels, weight.shape[1])


def _product(rows: Tensor, columns: Tensor, offset: Tensor | None) -> Tensor:
    if offset is None:
        return torch.bmm(rows, columns)
    if is_counted():  # counters know no baddbmm
        mixed = torch.bmm(rows, columns)
        return mixed + offset.to(mixed.dtype)
    return torch.baddbmm(offset, rows, columns)
