"""Optimizer wrappers: the type of mixed precision, and steps that are left out."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_gather_object, all_reduce, get_world_size
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from mmwave.errors import UserError
from mmwave.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """An optimizer wrapper whose forward passes run under CPU autocast.

    mmengine's ``AmpOptimWrapper`` refuses to run there. bfloat16 has the exponent range of float32,
    so losses need no scaling.

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


def has_bfloat16() -> bool:
    """Return whether every GPU of this machine computes in bfloat16, not merely emulates it."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if torch.version.hip:
        return count > 0
    return count > 0 and all(torch.cuda.get_device_capability(i) >= (8, 0) for i in range(count))


def agree_on_precision(runner: Runner) -> None:
    """Have all processes of a run compute in float16 where some machine has no bfloat16.

    Gradients of scaled losses and of others cannot be averaged.
    """
    wrapper = runner.optim_wrapper
    if get_world_size() == 1 or not isinstance(wrapper, Mapping):
        return
    if len(set(all_gather_object(str(wrapper.get('dtype'))))) > 1:
        wrapper.update(dtype='float16', loss_scale='dynamic')
        runner.logger.warning('a GPU of this run has no bfloat16: all compute in float16')


def optim_wrappers(runner: Runner) -> dict[str, Any]:
    """Return a training's optimizer wrappers by name; one alone has the empty name."""
    wrapper = runner.optim_wrapper
    return dict(wrapper.items()) if isinstance(wrapper, OptimWrapperDict) else {'': wrapper}


def loss_scaler(wrapper: Any) -> Any:
    """Return the ``GradScaler`` that scales a wrapper's losses, None where nothing does."""
    scaler = getattr(wrapper, 'loss_scaler', None)
    return scaler if scaler is not None and scaler.is_enabled() else None


class FiniteSteps:
    """Leaves out the steps of a wrapper whose loss or gradients are not finite in any process.

    The weights, the optimizer's state and the model's floating-point buffers, among them the
    statistics of batch norms, then stay as they were after the step before. Where gradients are
    accumulated, all that were accumulated for the step are left out. A ``GradScaler`` leaves steps
    with gradients that overflow out by itself, and needs to see them.

    Args:
        wrapper: its methods ``backward`` and ``step`` are replaced.
        model: whose buffers are kept.

    Attributes:
        skipped: steps left out, the same number in every process.
    """

    def __init__(self, wrapper: Any, model: nn.Module) -> None:
        self.skipped = 0
        self._wrapper = wrapper
        self._backward, self._step = wrapper.backward, wrapper.step
        self._losses: list[Tensor] = []  # whether each since the last step is finite
        self._buffers = [b for b in model.buffers() if b.is_floating_point() and b.numel()]
        self._kept = [buffer.clone() for buffer in self._buffers]
        wrapper.backward, wrapper.step = self.backward, self.step

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Note whether the loss is finite, without waiting for it."""
        self._losses.append(loss.detach().isfinite().all())
        self._backward(loss, **kwargs)

    def step(self, **kwargs: Any) -> None:
        """Make the optimizer's step, or undo what the forward passes did to the buffers."""
        finite = self._is_finite()
        if finite or loss_scaler(self._wrapper) is not None:
            self._step(**kwargs)  # a scaler leaves the step out by itself, and lowers its scale
        if finite:
            _copy(self._buffers, self._kept)
        else:
            self.skipped += 1
            _copy(self._kept, self._buffers)

    def _is_finite(self) -> bool:
        flags, self._losses = self._losses, []
        if loss_scaler(self._wrapper) is None:
            groups = self._wrapper.optimizer.param_groups
            gradients = [p.grad for group in groups for p in group['params'] if p.grad is not None]
            if gradients:
                flags.append(get_total_norm(gradients, norm_type=math.inf).isfinite())
        if not flags:
            return True
        finite = torch.stack([flag.to(flags[0].device) for flag in flags]).all().float()
        if get_world_size() > 1:
            all_reduce(finite, op='min')
        return bool(finite)


@torch.no_grad()
def _copy(source: list[Tensor], target: list[Tensor]) -> None:
    if source:
        torch._foreach_copy_(target, source)
