"""Matrices that mix the positions of a window, computed from relative positions."""

import torch
from torch import Tensor

from .overridable import overridable


@overridable
def positional_kernel(centers: Tensor, spreads: Tensor, window: tuple[int, int]) -> Tensor:
    r"""How much of position q goes into position p of a window, by their offset alone.

    .. math:: K_{s,p,q} \propto \exp(-\tfrac12 (d - \mu_s)^T A_s A_s^T (d - \mu_s)),
        \quad \sum_q K_{s,p,q} = 1

    d is the offset from p to q: columns to the right, then rows upwards.

    Args:
        centers: mu, (S, 2), in positions.
        spreads: A, (S, 2, 2), in one over positions: A A^T is the inverse of a covariance.
        window: h and w, positions numbered row by row.

    Returns:
        (S, P, P), computed at least in float32.

    Source: Zhicaiwww/PosMLP ``models/posmlp2D.py`` (generalised quadratic positional encoding).
    """
    exact = torch.promote_types(centers.dtype, torch.float32)
    centers, spreads = centers.to(exact), spreads.to(exact)
    rows, columns = (torch.arange(n, device=centers.device, dtype=exact) for n in window)
    right = (columns - columns[:, None]) - centers[:, 0, None, None]  # (S, w of p, w of q)
    up = (rows[:, None] - rows) - centers[:, 1, None, None]  # (S, h of p, h of q)
    # Written out, since autocast would lower the precision of matrix products.
    diagonal = spreads.square().sum(dim=2)[..., None, None]
    beside = (spreads[:, 0] * spreads[:, 1]).sum(dim=1)[:, None, None]
    along_w = (diagonal[:, 0] * right.square())[:, None, :, None, :]
    along_h = (diagonal[:, 1] * up.square())[:, :, None, :, None]
    crossed = (beside * up)[:, :, None, :, None] * right[:, None, :, None, :]
    forms = along_w + along_h + 2 * crossed  # (S, h, w, h, w)
    return (forms.flatten(3).flatten(1, 2) / -2).softmax(dim=2)
