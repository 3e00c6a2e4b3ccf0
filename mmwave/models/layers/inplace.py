"""What may be computed in place: decided here alone.

A large result in new memory costs several times its arithmetic on a CPU.
"""

import torch
from torch import Tensor, nn

from mmwave.ops import gelu_
from mmwave.ops.graphs import is_tracing, is_watched


def may_overwrite(x: Tensor, *others: Tensor) -> bool:
    """Whether a function of ``x``, which nobody else needs, and ``others`` may be stored in ``x``.

    That is where autograd is off, no graph is traced or compiled, no mode looks at operations, and
    no dtype is promoted.
    """
    busy = torch.is_grad_enabled() or is_tracing() or is_watched()
    return not busy and all(other.dtype == x.dtype for other in others)


def add(branch: Tensor, x: Tensor) -> Tensor:
    """``x + branch``, in place of ``branch`` where that may be overwritten."""
    return branch.add_(x) if may_overwrite(branch, x) else x + branch


def multiply(x: Tensor, factors: Tensor) -> Tensor:
    """``x * factors``, in place of ``x`` where that may be overwritten."""
    return x.mul_(factors) if may_overwrite(x, factors) else x * factors


def activate(act: nn.Module, x: Tensor) -> Tensor:
    """``act(x)``, in place of ``x`` where that may be overwritten and ``act`` is a GELU."""
    if type(act) is nn.GELU and may_overwrite(x):
        return gelu_(x, act.approximate)
    return act(x)
