"""Mixed precision where mmengine's ``AmpOptimWrapper`` refuses to run: on the CPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from torch import nn

from mmwave.errors import UserError
from mmwave.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """An optimizer wrapper whose forward passes run under CPU autocast.

    bfloat16 has the exponent range of float32, so losses need no scaling.

    Args:
        dtype: name of the type that matrix products are computed in: ``'bfloat16'`` or
            ``'float16'``.
        **kwargs: see :class:`mmengine.optim.OptimWrapper`.

    Raises:
        UserError: for another dtype.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs: Any) -> None:
        if dtype not in ('bfloat16', 'float16'):
            raise UserError(f"unknown dtype {dtype!r}: expected 'bfloat16' or 'float16'")
        super().__init__(**kwargs)
        self.cast_dtype = getattr(torch, dtype)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        with super().optim_context(model), torch.autocast('cpu', dtype=self.cast_dtype):
            yield
