"""The definition of ``axial_shift``."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .channels import slices_of


def axial_shift_reference(x: Tensor, offsets: tuple[int, ...], dim: int) -> Tensor:
    """See :func:`mmwave.ops.axial_shift`."""
    reach = max(map(abs, offsets))
    padded = F.pad(x, (reach, reach) if dim == 3 else (0, 0, reach, reach))
    channel = torch.arange(len(offsets), device=x.device)[:, None, None]
    result = torch.zeros_like(x)
    # Not by a tensor of offsets, a constant that exported graphs would have to copy.
    for start, stop, step, offset in slices_of(offsets):
        moved = padded.narrow(dim, reach + offset, x.shape[dim])
        here = (channel >= start) & (channel < stop) & ((channel - start) % step == 0)
        result = torch.where(here, moved, result)
    return result
