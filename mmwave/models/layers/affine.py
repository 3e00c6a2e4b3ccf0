"""A scale and a shift per channel, without statistics."""

import torch
from torch import Tensor, nn


class Affine(nn.Module):
    """Map (N, C, H, W) to ``weight * x + bias`` with one of each per channel.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias[:, None, None], x, self.weight[:, None, None])
