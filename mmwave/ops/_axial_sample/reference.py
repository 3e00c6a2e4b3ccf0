"""The definition of ``axial_sample``: two neighbours gathered, weighted and added."""

import torch
from torch import Tensor


def axial_sample_reference(x: Tensor, offsets: Tensor, dim: int) -> Tensor:
    """See :func:`mmwave.ops.axial_sample`."""
    size = x.shape[dim]
    # bfloat16 counts to 256 only.
    offsets = offsets.to(torch.promote_types(offsets.dtype, torch.float32))
    steps = torch.arange(size, device=x.device, dtype=offsets.dtype)
    index = steps[:, None] if dim == 2 else steps
    places = (index + offsets).repeat_interleave(x.shape[1] // offsets.shape[1], dim=1)
    lower = places.floor()
    share = (places - lower).to(x.dtype)

    def neighbour(at: Tensor) -> Tensor:
        inside = (at >= 0) & (at < size)
        # NaN and what lies beyond int64 is outside.
        gathered = x.gather(dim, torch.where(inside, at, 0).long())
        return torch.where(inside, gathered, 0)

    return neighbour(lower) * (1 - share) + neighbour(lower + 1) * share
