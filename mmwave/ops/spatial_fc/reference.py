"""The definition of ``spatial_fc``: one batched matrix product."""

import torch
from torch import Tensor


def spatial_fc_reference(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See :func:`mmwave.ops.spatial_fc`."""
    (n, channels, positions), sets = x.shape, weight.shape[0]
    # Consecutive channels use consecutive matrices: (N * C/S, S, P) -> (S, N * C/S, P). A
    # transposed view is what a batched product takes as it is; nothing is copied on the way in.
    rows = x.reshape(n * (channels // sets), sets, positions).transpose(0, 1)
    columns = weight.transpose(1, 2)
    if bias is None:
        mixed = torch.bmm(rows, columns)
    else:
        mixed = torch.baddbmm(bias[:, None], rows, columns)
    return mixed.transpose(0, 1).reshape(n, channels, weight.shape[1])
