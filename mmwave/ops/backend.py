"""Which implementation of an op runs: chosen in the code, not by an environment variable.

Every op has a ``reference`` implementation, which defines it. ``auto``, the default, selects the
fastest one that supports the tensors at hand and otherwise the reference. The choice is made once,
in :func:`select`: no implementation falls back to another one.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .graphs import is_exporting

BACKENDS = ('auto', 'reference', 'torch', 'onednn', 'cpp', 'triton')
"""Accepted names, in no order."""

# A plain global rather than a ContextVar: torch.compile guards on it and traces through.
_current = 'auto'


def current_backend() -> str:
    """Return the requested backend: one of :data:`BACKENDS`."""
    return _current


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run the ops inside the ``with`` block with backend ``name``.

    Args:
        name: one of :data:`BACKENDS`. An op whose backend of this name cannot run on the given
            tensors raises ``RuntimeError`` with the reason; one that has no such backend chooses as
            in ``auto``.

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
    op: str, implementations: Mapping[str, Callable[..., Any]], *arguments: Any
) -> Callable[..., Any]:
    """Return the implementation of ``op`` to run on ``arguments``.

    Args:
        op: name of the op, for messages.
        implementations: backend name -> function, the preferred first and ``reference`` among them.
            A function may carry an attribute ``unsupported(*arguments) -> str``: the reason it
            cannot run on them, or an empty string.
        arguments: the tensors, and those settings that an implementation may not support.

    Raises:
        RuntimeError: where the requested backend cannot run; the message gives the reason.
    """
    if _current in implementations:
        chosen = implementations[_current]
        reason = _reason(chosen, arguments)
        if reason:
            raise RuntimeError(f'{op}: backend {_current!r} cannot run here: {reason}')
        return chosen
    if is_exporting():
        return implementations['reference']  # an exported graph consists of torch's own operators
    return next(f for f in implementations.values() if not _reason(f, arguments))


def _reason(implementation: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    unsupported = getattr(implementation, 'unsupported', None)
    return unsupported(*arguments) if unsupported else ''
