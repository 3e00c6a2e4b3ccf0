"""The machine's rate of matrix products, which a model's rate is compared with."""

from collections.abc import Callable, Iterable

import torch

from mmwave.ops import linear

SIDE = 2048
"""Rows and columns of the matrices whose product is timed."""
STEP = 3
"""MACs of a training step over those of its forward pass: the gradients of both factors follow."""


def gemm(dtype: torch.dtype, device: str, *, side: int = SIDE) -> Callable[[], object]:
    """Return a callable that computes the product of two square matrices.

    It is timed in turns with the models, so that both see the machine in the same state.
    """
    a, b = (torch.randn(side, side).to(device, dtype) for _ in range(2))
    return lambda: linear(a, b)


def gemm_peak(seconds: Iterable[float], *, side: int = SIDE) -> float:
    """Return the FLOP/s of the fastest of several calls of :func:`gemm`."""
    return 2 * side**3 / min(seconds)
