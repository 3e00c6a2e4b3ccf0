"""Count the parameters and multiply-accumulates of a module."""

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmwave.ops.backend import use_backend


def count_params(module: nn.Module) -> int:
    """Return the number of elements of all parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def count_macs(module: nn.Module, images: Tensor) -> int:
    """Return the multiply-accumulates of convolutions and matrix products in one forward pass.

    Norms, activations, poolings and other elementwise work are not counted.

    Args:
        module: called with ``images``; in training mode its norms update their statistics.
        images: (N, C, H, W), on the module's device. On the meta device nothing is computed, and
            the count is the same.
    """
    # The counter knows torch's own operators, which the reference implementations consist of.
    with FlopCounterMode(display=False) as counter, use_backend('reference'):
        module(images)
    # It counts a multiplication and an addition as two.
    return int(counter.get_total_flops()) // 2
