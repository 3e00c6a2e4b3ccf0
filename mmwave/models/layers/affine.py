"""A scale and a shift per channel, without statistics."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .inplace import may_overwrite


class Affine(nn.Module):
    """``weight * x + bias`` with one of each per channel.

    Args:
        channels: C.
        channels_last: whether x is (..., C) instead of (N, C, H, W).
    """

    def __init__(self, channels: int, channels_last: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> Tensor:
        if self.channels_last:
            return torch.addcmul(self.bias, x, self.weight)
        if x.is_cpu and may_overwrite(x, self.weight):
            # The same by a batch norm's kernel: torch is up to ten times as slow at products that
            # broadcast along the last axis.
            mean, variance = torch.zeros_like(self.weight), torch.ones_like(self.weight)
            return F.batch_norm(x, mean, variance, self.weight, self.bias, eps=0.0)
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None])
