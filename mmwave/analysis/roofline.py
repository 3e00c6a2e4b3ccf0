"""How much of what the machine can do a model uses: its products over the machine's best."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmwave.ops import linear
from mmwave.ops.backend import use_backend

SIDE = 2048
"""Rows and columns of the matrices whose product is the measure."""
STEP = 3
"""Products of a training step over those of its forward pass: gradients of both factors follow."""


def gemm(dtype: torch.dtype, device: str, *, side: int = SIDE) -> Callable[[], object]:
    """Computes the product of two square matrices when called.

    It takes its turn with what it is the measure of, so that both see the machine as it is then.
    """
    a, b = (torch.randn(side, side).to(device, dtype) for _ in range(2))
    return lambda: linear(a, b)


def gemm_peak(seconds: Iterable[float], *, side: int = SIDE) -> float:
    """Floating-point operations a second of the fastest of several calls of :func:`gemm`."""
    return 2 * side**3 / min(seconds)


@torch.no_grad()
def forward_macs(module: nn.Module, images: Tensor) -> int:
    """Multiply-accumulates of convolutions and matrix products in one forward pass."""
    # The counter knows torch's own operators, which the reference forms of ours consist of.
    with FlopCounterMode(display=False) as counter, use_backend('reference'):
        module(images)
    # It counts a multiplication and an addition as two.
    return int(counter.get_total_flops()) // 2
