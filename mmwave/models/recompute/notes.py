"""How a tensor is recomputed: notes that stand in for it among what autograd stores."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef


class Call:
    """A call of a cheap function, to be repeated in the backward pass.

    Its arguments are stored as they are; those that are outputs of cheap calls, as such.
    """

    __slots__ = ('args', 'autocast', 'function', 'kwargs', 'requested', 'results', 'users')

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple,
        kwargs: Mapping[str, Any],
        autocast: tuple[str, torch.dtype | None],
    ) -> None:
        self.function, self.args, self.kwargs, self.autocast = function, args, kwargs, autocast
        # Saved tensors and calls that need an output, and those that got it in this backward pass.
        self.users = self.requested = 0
        self.results: tuple[Tensor, ...] | None = None

    def add_user(self) -> None:
        """Count one more that needs an output."""
        self.users += 1
        if self.users == 1:
            for arg in flat(self.args, self.kwargs):
                if isinstance(arg, Output):
                    arg.call.add_user()

    def output(self, index: int) -> Tensor:
        """Return an output, without a graph; results are cached until every user has theirs."""
        if self.results is None:
            results = self._repeat()
            self.results = results if isinstance(results, tuple) else (results,)
        result = self.results[index]
        self.requested += 1
        if self.requested >= self.users:
            self.results, self.requested = None, 0
        return result

    def _repeat(self) -> Any:
        with torch.no_grad(), self._autocast():
            args = mapped(value_of, self.args)
            kwargs = {name: mapped(value_of, value) for name, value in self.kwargs.items()}
            return self.function(*args, **kwargs)

    def _autocast(self) -> AbstractContextManager:
        """Autocast as it was, whatever it is now."""
        kind, dtype = self.autocast
        if dtype is None and not (kind and torch.is_autocast_enabled(kind)):
            return nullcontext()
        return torch.autocast(kind, dtype=dtype, enabled=dtype is not None)


class Input:
    """A tensor that is stored, with its version."""

    __slots__ = ('tensor', 'version')

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.version = tensor.detach(), version(tensor)

    def value(self) -> Tensor:
        """Return the tensor.

        Raises:
            RuntimeError: where it was modified in place, as by autograd.
        """
        if version(self.tensor) != self.version:
            raise RuntimeError(
                'one of the variables needed for gradient computation has been modified by an '
                f'inplace operation: a tensor of shape {tuple(self.tensor.shape)} is at version '
                f'{self.tensor._version}; expected version {self.version} instead'
            )
        return self.tensor


class Made:
    """That a storage holds output number ``index`` of a call."""

    __slots__ = ('call', 'dtype', 'index', 'layout', 'storage', 'version')

    def __init__(self, call: Call, index: int, tensor: Tensor) -> None:
        self.call, self.index, self.dtype, self.version = call, index, tensor.dtype, tensor._version
        self.layout = tensor.shape, tensor.stride(), tensor.storage_offset()
        # Keeps the storage's identity, not its memory: no later one is taken for it.
        self.storage = StorageWeakRef(tensor.untyped_storage())


class Output:
    """An output of a call, or a view of it."""

    __slots__ = ('call', 'made', 'view')

    def __init__(self, made: Made, tensor: Tensor) -> None:
        self.made, self.call = made, made.call
        self.view = tensor.shape, tensor.stride(), tensor.storage_offset()

    def value(self) -> Tensor:
        """Recompute it, in the memory layout it had."""
        made = self.call.output(self.made.index)
        shape, strides, offset = self.made.layout
        if (made.stride(), made.storage_offset()) != (strides, offset):
            # A function may choose its output's layout by whether autograd is on.
            length = offset + 1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
            made = made.new_empty(length).as_strided(shape, strides, offset).copy_(made)
        return made.as_strided(*self.view)


class Saved:
    """What autograd stores of a tensor: itself, or how it is recomputed.

    Itself without its graph: a tensor that an operation saves of its own output would keep the
    operation alive, and that the tensor. Autograd checks no version of what hooks store.
    """

    __slots__ = ('source',)

    def __init__(self, source: Input | Output) -> None:
        self.source = source

    def unpack(self) -> Tensor:
        """Return the tensor."""
        return self.source.value()


def has_storage(tensor: Any) -> bool:
    """Whether a tensor can be recognised by its storage, which some kinds do not have."""
    plain = type(tensor) in (Tensor, nn.Parameter)
    return plain and tensor.layout is torch.strided and not tensor.is_meta


def version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


def value_of(arg: Any) -> Any:
    return arg.value() if isinstance(arg, Input | Output) else arg


def mapped(function: Callable[[Any], Any], arg: Any) -> Any:
    """Map ``arg``, or what it holds where it is a sequence, as tensors to concatenate are."""
    if isinstance(arg, tuple | list):
        return tuple(mapped(function, part) for part in arg)
    return function(arg)


def flat(args: tuple, kwargs: Mapping[str, Any]) -> Iterator[Any]:
    """Arguments one by one, those in sequences too."""
    for arg in (*args, *kwargs.values()):
        yield from arg if isinstance(arg, tuple | list) else (arg,)
