"""The one cache of what is derived from parameters, valid until one of them changes.

The weights of a deploy form stay constant for most calls, and what products derive from them (a
matrix in another memory layout, kernels for another window) takes time to compute. It is cached
here, not in modules: no state dict, copy or export contains it, and it is freed with its parameter.

A parameter counts as changed where another tensor replaced it (a new ``Parameter``,
``functional_call``, loading with ``assign``), where its version counter, dtype or storage changed
(in-place operations, loading, casting, moving), where an optimizer that holds it took a step
(torch's fused ones increment no version counter), and, on the CPU, where one of :data:`SAMPLES` of
its values changed. The last is for writes that torch does not see, such as
``parameter.data.mul_(2)`` or NumPy's: they are detected where they reach one of the sampled values,
as everything does that scales, averages or replaces a whole parameter. Comparing all values would
cost what the cache saves.
"""

import threading
import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

SAMPLES = 64
"""Values of a parameter that are compared in every call, spread over all of it."""

Made = TypeVar('Made')


@dataclass(frozen=True, eq=False)
class _State:
    """A parameter in one state, and what was derived from it in that state."""

    parameter: weakref.ref
    version: int
    dtype: torch.dtype
    storage: StorageWeakRef
    """A weak reference: the storage's address cannot be reused while it exists."""
    places: tuple[tuple[int, ...], tuple[int, ...], int]
    """Shape, strides and offset of the samples in the storage."""
    samples: Tensor
    """A copy of them. NaN equals nothing: what is derived from it is recomputed in every call."""
    entries: dict[Hashable, tuple[tuple['_State', ...], Any]] = field(default_factory=dict)
    """By key: the states of the other parameters that the value depends on, and the value."""

    def is_of(self, parameter: Tensor) -> bool:
        """Return whether the parameter is the same and in the same state."""
        return (
            self.parameter() is parameter
            and self.version == parameter._version
            and self.dtype is parameter.dtype
            and self.storage.cdata == parameter.untyped_storage()._cdata
            and torch.equal(self.samples, parameter.as_strided(*self.places))
        )


_states: dict[int, _State] = {}
"""By the parameter's ``id``; removed with it."""
_lock = threading.Lock()


def cached(
    key: Hashable, make: Callable[..., Made], *tensors: Tensor, limit: int | None = None
) -> Made | None:
    """Return ``make(*tensors)``, computed once for as long as the parameters do not change.

    Threads that ask at the same time may each compute it; each returns what fits its parameters.

    Args:
        key: distinguishes ``make`` from others.
        make: called with the detached tensors; its result must not be modified.
        tensors: parameters, or views of parameters.
        limit: the number of results cached for the first parameter, beyond which the oldest is
            evicted; None for no limit.

    Returns:
        None where a tensor is no part of a parameter, or of one without a version counter.
    """
    found = []
    for tensor in tensors:
        parameter = tensor if tensor._base is None else tensor._base
        if not isinstance(parameter, nn.Parameter) or parameter.is_inference():
            return None
        state = _states.get(id(parameter))
        found.append(state if state is not None and state.is_of(parameter) else _record(parameter))
    entries, others = found[0].entries, tuple(found[1:])
    key = key, *((t.storage_offset(), t.shape, t.stride()) for t in tensors)
    known = entries.get(key)
    if known is not None and known[0] == others:  # by identity: states define no equality
        value: Made = known[1]
        return value
    # Never an inference tensor, which a call outside inference mode could not use.
    with torch.inference_mode(False), torch.no_grad():
        value = make(*(t.detach() for t in tensors))
    with _lock:
        entries.pop(key, None)
        while limit is not None and len(entries) >= limit:
            del entries[next(iter(entries))]
        entries[key] = others, value
    return value


def _record(parameter: Tensor) -> _State:
    """Return a new state of a parameter, without entries."""
    name = id(parameter)

    def forget(reference: weakref.ref) -> None:
        state = _states.get(name)
        # The address may have been reused for another parameter by now.
        if state is not None and state.parameter is reference:
            _states.pop(name, None)

    places = _places(parameter)
    storage = StorageWeakRef(parameter.untyped_storage())  # type: ignore[no-untyped-call]
    state = _states[name] = _State(
        weakref.ref(parameter, forget),
        parameter._version,
        parameter.dtype,
        storage,
        places,
        parameter.detach().as_strided(*places).clone(),
    )
    return state


def _places(parameter: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Return where to sample: nowhere off the CPU, where a comparison would synchronise."""
    count = parameter.numel() if parameter.is_cpu and parameter.is_contiguous() else 0
    step = count // SAMPLES | 1  # odd, so as not to go down one column of a matrix
    return (-(-count // step),), (step,), int(parameter.storage_offset())


def _forget_all_of(optimizer: Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups if _states else ():
        for parameter in group['params']:
            _states.pop(id(parameter), None)


register_optimizer_step_post_hook(_forget_all_of)
