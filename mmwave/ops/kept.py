"""What is made of parameters, kept until one of them changes: the one cache of this kind.

A deploy form's weights stay as they are for most calls, and what products want of them (a matrix in
another layout, kernels for another window) takes time to make. It is kept here, not in modules: no
state dict, copy or export holds it, and it goes with its parameter.

A parameter counts as changed where another tensor took its place (a new ``Parameter``,
``functional_call``, loading with ``assign``), where its version counter, dtype or storage changed
(writing in place, loading, casting, moving), where an optimizer that holds it took a step (torch's
fused ones raise no version counter), and, on the CPU, where one of :data:`SAMPLES` of its values
changed. The last is for writing that torch does not see, such as ``parameter.data.mul_(2)`` or
NumPy's: it is seen where it reaches one of the sampled values, as all that scales, averages or
replaces a whole parameter does. Checking all values would cost what is saved.
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
    """A parameter in one state, and what was made of it then."""

    parameter: weakref.ref
    version: int
    dtype: torch.dtype
    storage: StorageWeakRef
    """Keeps the storage's address from being given to another."""
    places: tuple[tuple[int, ...], tuple[int, ...], int]
    """Shape, strides and offset of the samples in the storage."""
    samples: Tensor
    """A copy of them. NaN is equal to nothing: what is made of it is made again in every call."""
    made: dict[Hashable, tuple[tuple['_State', ...], Any]] = field(default_factory=dict)
    """By how: the states of the other parameters that it was made of, and what was made."""

    def is_of(self, parameter: Tensor) -> bool:
        """Whether the parameter is the same and in the same state."""
        return (
            self.parameter() is parameter
            and self.version == parameter._version
            and self.dtype is parameter.dtype
            and self.storage.cdata == parameter.untyped_storage()._cdata
            and torch.equal(self.samples, parameter.as_strided(*self.places))
        )


_states: dict[int, _State] = {}
"""By the parameter's ``id``; gone with it."""
_lock = threading.Lock()


def kept(
    how: Hashable, make: Callable[..., Made], *tensors: Tensor, most: int | None = None
) -> Made | None:
    """Return ``make(*tensors)``, made once for as long as the parameters stay as they are.

    Threads that ask at the same time may each make it; each returns what fits its parameters.

    Args:
        how: what tells ``make`` from others.
        make: called with the tensors detached; what it returns must not be changed.
        tensors: parameters, or views of parameters.
        most: how many results are kept of the first parameter, the oldest being dropped; None: all.

    Returns:
        None where a tensor is no part of a parameter, or of one without a version counter.
    """
    found = []
    for tensor in tensors:
        parameter = tensor if tensor._base is None else tensor._base
        if not isinstance(parameter, nn.Parameter) or parameter.is_inference():
            return None
        state = _states.get(id(parameter))
        found.append(state if state is not None and state.is_of(parameter) else _noted(parameter))
    made, others = found[0].made, tuple(found[1:])
    key = how, *((t.storage_offset(), t.shape, t.stride()) for t in tensors)
    known = made.get(key)
    if known is not None and known[0] == others:  # the very states: they have no equality
        value: Made = known[1]
        return value
    # Never an inference tensor, which a call outside inference mode could not use.
    with torch.inference_mode(False), torch.no_grad():
        value = make(*(t.detach() for t in tensors))
    with _lock:
        made.pop(key, None)
        while most is not None and len(made) >= most:
            del made[next(iter(made))]
        made[key] = others, value
    return value


def _noted(parameter: Tensor) -> _State:
    """A new state of a parameter, of which nothing is made yet."""
    name = id(parameter)

    def forget(reference: weakref.ref) -> None:
        state = _states.get(name)
        # The address may be another parameter's by now.
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
    """Where samples are taken: nowhere off the CPU, where comparing them would wait for it."""
    count = parameter.numel() if parameter.is_cpu and parameter.is_contiguous() else 0
    step = count // SAMPLES | 1  # odd, so as not to go down one column of a matrix
    return (-(-count // step),), (step,), int(parameter.storage_offset())


def _forget_all_of(optimizer: Optimizer, *_: Any) -> None:
    for group in optimizer.param_groups if _states else ():
        for parameter in group['params']:
            _states.pop(id(parameter), None)


register_optimizer_step_post_hook(_forget_all_of)
