"""The definition of ``axial_shift``."""

import torch
import torch.nn.functional as F
from torch import Tensor


def axial_shift_reference(x: Tensor, offsets: tuple[int, ...], dim: int) -> Tensor:
    """See :func:`mmwave.ops.axial_shift`."""
    reach = max(map(abs, offsets))
    padded = F.pad(x, (reach, reach) if dim == 3 else (0, 0, reach, reach))
    result = torch.zeros_like(x)
    by_channel = torch.tensor(offsets, device=x.device)[:, None, None]
    for offset in sorted(set(offsets)):
        moved = padded.narrow(dim, reach + offset, x.shape[dim])
        result = torch.where(by_channel == offset, moved, result)
    return result
