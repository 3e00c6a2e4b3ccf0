"""Which implementation of an op runs: chosen in the code, not by an environment variable.

Every op has a ``reference`` implementation, which defines it. ``auto``, the default, takes the
fastest one that supports the tensors at hand and otherwise the reference.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor

from .graphs import is_recording

BACKENDS = ('auto', 'reference', 'torch', 'onednn', 'cpp', 'cpp_bf16', 'triton')
"""Accepted names, in no order."""

# A plain global rather than a ContextVar: torch.compile guards on it and traces through.
_current = 'auto'


def current_backend() -> str:
    """The backend asked for: one of :data:`BACKENDS`."""
    return _current


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the ops inside the ``with`` block with backend ``name``.

    Args:
        name: one of :data:`BACKENDS`. An op whose backend of this name cannot run on the tensors
            given raises ``RuntimeError`` with the reason; one that has none chooses as in ``auto``.

    Raises:
        ValueError: for an unknown name.
    """
    global _current
    if name not in BACKENDS:
        raise ValueError(f'unknown backend {name!r}: expected one of {", ".join(BACKENDS)}')
    previous, _current = _current, name
    try:
        yield
    finally:
        _current = previous


def select(
    op: str, implementations: Mapping[str, Callable[..., Any]], *tensors: Tensor
) -> Callable[..., Any]:
    """The implementation of ``op`` to run on ``tensors``.

    Args:
        op: name of the op, for messages.
        implementations: backend name -> function, the preferred first and ``reference`` among them.
            A function may carry an attribute ``unsupported(*tensors) -> str``: why it cannot run on
            the tensors, or an empty string.
    """
    if _current in implementations:
        chosen = implementations[_current]
        reason = _reason(chosen, tensors)
        if reason:
            raise RuntimeError(f'{op}: backend {_current!r} cannot run here: {reason}')
        return chosen
    if is_recording():
        return implementations['reference']  # a graph for others is of plain operations
    return next(f for f in implementations.values() if not _reason(f, tensors))


def _reason(implementation: Callable[..., Any], tensors: tuple[Tensor, ...]) -> str:
    unsupported = getattr(implementation, 'unsupported', None)
    return unsupported(*tensors) if unsupported else ''
