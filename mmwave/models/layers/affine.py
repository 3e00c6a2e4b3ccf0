"""A scale and a shift per channel, without statistics."""

import torch
from torch import Tensor, nn


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
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None])
