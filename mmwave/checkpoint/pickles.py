"""Pickles read without running code, refused by name where they ask for too much."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmwave.errors import UserError, printable, printable_path

from .nodes import AsksForMoreError, Builder
from .stand_ins import ARRAYS
from .unpickler import Stream, TooMuchError, unpickled

TRUST_FLAG = '--trust-checkpoint'
"""What a user of the tools types to have a file read in full."""

_MAX_NAMES = 50


class UntrustedCheckpointError(UserError):
    """A checkpoint that asks for more than tensors and plain data: reading it may run code."""


def load_arrays(path: Path, trust: bool = False) -> Any:
    """Return what a pickle without torch's header holds, if that is NumPy arrays and plain data.

    Paddle writes such pickles, of protocol 4 unless told otherwise.

    Args:
        path: a file that :func:`mmwave.checkpoint.container_of` calls ``'pickle'``.
        trust: read whatever the pickle asks for, which may run any code its author put in.

    Raises:
        UntrustedCheckpointError: where it asks for anything else and ``trust`` is false.
        UserError: where it is damaged.
    """
    if trust:
        with explained_trusted(path), path.open('rb') as file:
            return pickle.load(file)  # noqa: S301
    with explained(path), path.open('rb') as file:
        stream = Stream(file)
        content = unpickled(stream, ARRAYS, stream.size)
        return Builder(stream.size).build(content)


def damaged(path: Path, reason: str) -> UserError:
    """Return the error for a file that cannot be read."""
    first = reason.strip().splitlines()[0] if reason.strip() else 'unreadable'
    try:
        size = f'{path.stat().st_size} bytes'
    except OSError:
        size = 'no longer there'
    return UserError(
        f'{printable_path(path)} is damaged or not a checkpoint ({size}): {printable(first)}'
    )


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn whatever reading ``path`` may raise into an error that names it, in one line."""
    try:
        yield
    except AsksForMoreError as error:
        shown = [printable(name) for name in error.names[:_MAX_NAMES]]
        if len(error.names) > _MAX_NAMES:
            shown.append(f'{len(error.names) - _MAX_NAMES} more')
        raise UntrustedCheckpointError(
            f'{printable_path(path)} is not read: it asks for {", ".join(shown)}, and a '
            'checkpoint that asks for more than tensors and plain data may run code. Where you '
            f'trust its author, give {TRUST_FLAG}'
        ) from error
    except UserError as error:
        raise UserError(f'{printable_path(path)}: {error}') from error
    except TooMuchError as error:
        raise UserError(
            f'{printable_path(path)} is not read: {error}. Where you trust its author, give '
            f'{TRUST_FLAG}'
        ) from error
    except Exception as error:  # a damaged file can fail in any way
        raise damaged(path, str(error) or type(error).__name__) from error


@contextmanager
def explained_trusted(path: Path) -> Iterator[None]:
    """Turn what reading all of ``path`` may raise into an error in one line."""
    try:
        yield
    except (ImportError, AttributeError) as error:
        raise UserError(
            f'{printable_path(path)} needs a class or function that is not installed here '
            f'({printable(error)}): install the package that it was saved with'
        ) from error
    except Exception as error:  # as above
        raise damaged(path, str(error) or type(error).__name__) from error
