"""Stochastic depth."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Leave a residual branch out for some of the images of a batch, in training only.

    Deep Networks with Stochastic Depth (arXiv:1603.09382). What is kept is divided by the
    probability of being kept, so that its expectation is the input. The random numbers are those
    that mmcv's module of this name draws: training with the same seed is the same.

    Args:
        drop_prob: probability of leaving the branch out.
    """

    def __init__(self, drop_prob: float = 0.1) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, ...) like ``x``, with whole images set to 0."""
        if not self.training or self.drop_prob == 0.0:
            return x
        kept = 1 - self.drop_prob
        one_per_image = (len(x), *(1 for _ in x.shape[1:]))
        random = torch.rand(one_per_image, dtype=x.dtype, device=x.device)
        return x / kept * (random + kept).floor()
