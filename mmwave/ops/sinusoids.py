"""Sinusoidal position codes."""

from functools import lru_cache

import torch
from torch import Tensor

from .graphs import is_tracing, is_watched

CACHED = 4
"""Tables that stay in memory: those of the last few image sizes."""


def sinusoids(count: int, channels: int, device: torch.device | None = None) -> Tensor:
    """Return the codes of Vaswani et al., arXiv:1706.03762, in float32: (``count``, ``channels``).

    The angles of large images are too large for float32: they are computed in float64.

    Args:
        count: positions.
        channels: an even number.
        device: where the table is needed. Such a table is cached and must not be modified. None
            returns a new one on torch's default device.
    """
    # What is made while tracing, or under a mode, belongs to the graph or is no real tensor.
    if device is None or is_tracing() or is_watched():
        return _table(count, channels, device)
    return _cached_table(count, channels, device)


@lru_cache(maxsize=CACHED)
def _cached_table(count: int, channels: int, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # autograd can use it, whoever asked for it first
        return _table(count, channels, device)


def _table(count: int, channels: int, device: torch.device | None) -> Tensor:
    index = torch.arange(count, dtype=torch.float64, device=device)
    pair = torch.arange(0, channels, 2, dtype=torch.float64, device=device)
    angles = index[:, None] / 10000 ** (pair / channels)
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1).float()
