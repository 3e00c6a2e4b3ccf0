"""Activation checkpointing of a block: all of it is recomputed in the backward pass."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mmwave.models.layers import batch_statistics_kept


# torch.compile leaves it alone: dynamo has no checkpoints with contexts. As torch.compiler.disable,
# but dynamo, whose import takes as long as torch's, is not imported before there is a call.
@torch._disable_dynamo
def checkpointed(block: nn.Module, *inputs: Any) -> Any:
    """Run ``block`` now, without storing its activations, and again in the backward pass."""

    def contexts() -> tuple:
        return nullcontext(), _Repeatable(lambda: batch_statistics_kept(block))

    return checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts)


class _Repeatable:
    """A context that is entered again for each backward pass over one graph."""

    def __init__(self, make: Callable[[], AbstractContextManager]) -> None:
        self.make = make
        self.entered: list[AbstractContextManager] = []

    def __enter__(self) -> None:
        context = self.make()
        context.__enter__()
        self.entered.append(context)

    def __exit__(self, *error: Any) -> bool | None:
        return self.entered.pop().__exit__(*error)
