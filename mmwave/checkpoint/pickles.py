"""Pickles read by restricted unpicklers, refused by name where they ask for too much."""

import argparse
import pickle
import pickletools
import re
import threading
import warnings
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch._weights_only_unpickler import _get_allowed_globals
from torch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals

from mmwave.errors import UserError

TRUST_FLAG = '--trust-checkpoint'
"""What a user of the tools types to have a file read in full."""

ZIP_MAGIC = b'PK\x03\x04'
PICKLE_MAGIC = b'\x80'  # of protocol 2 or later
_LEGACY_PICKLES = 5  # magic number, protocol, system, content, storage keys
_HISTORY_STATISTICS = ('min', 'max', 'current', 'mean')
_allow_list_lock = threading.Lock()


class UntrustedCheckpointError(UserError):
    """A checkpoint that asks for more than tensors and plain data: reading it may run code."""


def load_restricted(path: Path) -> Any:
    """What the torch file ``path`` holds, as long as that is tensors and plain data.

    Raises:
        UntrustedCheckpointError: where it asks for anything else.
        ValueError: where it is damaged.
    """
    try:
        with _only_allowed(), warnings.catch_warnings():
            # torch warns of pickles that it will refuse in the next line; the error here says it.
            warnings.filterwarnings('ignore', message='Detected pickle protocol')
            content = torch.load(path, map_location='cpu', weights_only=True)
        return _settled(content, {})
    except Exception as error:  # a damaged pickle can fail in any way
        allowed = _get_allowed_globals().keys() | _ALLOWED.keys()
        raise _explained(path, error, allowed) from error


def load_arrays(path: Path, trust: bool = False) -> Any:
    """What a pickle without torch's header holds, as long as that is NumPy arrays and plain data.

    Paddle writes such pickles, of protocol 4 unless told otherwise.

    Args:
        path: a file that :func:`mmwave.checkpoint.container_of` calls ``'pickle'``.
        trust: read whatever the pickle asks for, which may run any code its author put in.

    Raises:
        UntrustedCheckpointError: where it asks for anything else and ``trust`` is false.
        ValueError: where it is damaged.
    """
    try:
        with path.open('rb') as file:
            if trust:
                return pickle.load(file)  # noqa: S301
            return _settled(_ArrayUnpickler(file).load(), {})
    except Exception as error:  # as above
        if trust:
            raise damaged(path, str(error)) from error
        raise _explained(path, error, _ARRAYS.keys()) from error


def damaged(path: Path, reason: str) -> UserError:
    """The error for a file that cannot be read."""
    first = reason.strip().splitlines()[0] if reason.strip() else 'unreadable'
    size = path.stat().st_size
    return UserError(f'{path} is damaged or not a checkpoint ({size} bytes): {first}')


# NumPy's own rebuild functions are not let in: a pickled dtype may set the flags of its C struct,
# and then bytes of the file are taken for object pointers. Stand-ins take the recipes, check them,
# and are replaced by the real thing afterwards.


class _Dtype:
    """Stands for ``numpy.dtype`` in a pickle: numbers and fixed-length text only."""

    def __init__(self, spec: str, *_: Any) -> None:
        self.dtype = np.dtype(str(spec))
        if self.dtype.kind not in 'biufcSU':
            raise pickle.UnpicklingError(f'NumPy data of dtype {self.dtype}')

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        self.dtype = self.dtype.newbyteorder(order if order in ('<', '>') else '=')


class _Array:
    """Stands for a ``numpy.ndarray`` in a pickle."""

    value: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, recipe, fortran, content = state
        flat = np.frombuffer(content, recipe.dtype).copy()
        self.value = flat.reshape(shape, order='F' if fortran else 'C')


class _History:
    """Stands for mmengine's ``HistoryBuffer``; its table of functions is left in the file."""

    state: dict[str, Any]

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def restored(self, memo: dict[int, Any]) -> Any:
        from mmengine.logging import HistoryBuffer

        state = _settled(self.state, memo)
        return HistoryBuffer(state['_log_history'], state['_count_history'], state['max_length'])


def _scalar(recipe: _Dtype, content: bytes) -> Any:
    return np.frombuffer(content, recipe.dtype)[0]


def _settled(value: Any, memo: dict[int, Any]) -> Any:
    """``value`` with every stand-in replaced; dicts and lists are changed in place.

    ``memo`` keeps the results by the ids of what is alive in ``value``: a pickle may share objects.
    """
    if id(value) in memo:
        return memo[id(value)]
    result = memo[id(value)] = value
    if isinstance(value, _Array):
        result = value.value
    elif isinstance(value, _Dtype):
        result = value.dtype
    elif isinstance(value, _History):
        result = value.restored(memo)
    elif isinstance(value, argparse.Namespace):
        _settled(vars(value), memo)
    elif isinstance(value, dict):
        for key in value:
            value[key] = _settled(value[key], memo)
    elif isinstance(value, list):
        value[:] = [_settled(item, memo) for item in value]
    elif type(value) is tuple:
        result = tuple(_settled(item, memo) for item in value)
    memo[id(value)] = result
    return result


def _reconstruct(cls: Any, *_: Any) -> _Array:
    if cls is not _Array:
        raise pickle.UnpicklingError('a subclass of numpy.ndarray')
    return _Array()


def _statistic(owner: Any, name: Any, *_: Any) -> None:
    if owner is not _History or name not in _HISTORY_STATISTICS:
        raise pickle.UnpicklingError(f'builtins.getattr of {owner!r}, {name!r}')


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != 'latin1':
        raise pickle.UnpicklingError(f'bytes in the encoding {encoding}')
    return text.encode(encoding)


class _Config:
    """Stands for the settings of a training run, a dict with attributes; only the dict is read."""

    def __new__(cls) -> Any:
        return OrderedDict()  # which torch's unpickler fills as it fills no other class


_NUMPY: Mapping[str, Callable[..., Any]] = {
    'numpy.dtype': _Dtype,
    'numpy.ndarray': _Array,
    'numpy.core.multiarray._reconstruct': _reconstruct,
    'numpy._core.multiarray._reconstruct': _reconstruct,
    'numpy.core.multiarray.scalar': _scalar,
    'numpy._core.multiarray.scalar': _scalar,
}

_ALLOWED: Mapping[str, Callable[..., Any]] = {
    **_NUMPY,
    'argparse.Namespace': argparse.Namespace,
    'yacs.config.CfgNode': _Config,
    'mmengine.logging.history_buffer.HistoryBuffer': _History,
    # How pickle spells ``HistoryBuffer.mean``, which every such buffer carries along.
    'builtins.getattr': _statistic,
}
"""What a torch file may ask for besides tensors."""

_ARRAYS: Mapping[str, Callable[..., Any]] = {
    **_NUMPY,
    'builtins.tuple': tuple,
    'collections.OrderedDict': OrderedDict,
    '_codecs.encode': _latin1,  # how protocol 2 spells bytes
}
"""What a pickle of arrays may ask for."""


class _ArrayUnpickler(pickle.Unpickler):
    """Knows the names of ``_ARRAYS`` and no other."""

    def find_class(self, module: str, name: str) -> Any:
        wanted = _modern_name(module, name)
        if wanted not in _ARRAYS:
            raise pickle.UnpicklingError(wanted)
        found = _ARRAYS[wanted]
        if isinstance(found, type):
            return found
        # A pickle may set attributes of a function; of this one nobody else will see them.
        return lambda *arguments: found(*arguments)


@contextmanager
def _only_allowed() -> Iterator[None]:
    """Let torch's restricted unpickler know our list and no other."""
    # The list is one for the process, and what other libraries added to it is no part of ours.
    with _allow_list_lock:
        others = get_safe_globals()
        clear_safe_globals()
        add_safe_globals([(function, name) for name, function in _ALLOWED.items()])
        try:
            yield
        finally:
            clear_safe_globals()
            add_safe_globals(others)


def _explained(path: Path, error: Exception, allowed: Collection[str]) -> UserError:
    """The error to raise where the restricted reading of ``path`` ended in ``error``."""
    asked: set[str] = set()
    broken = ''
    try:
        asked.update(_names_asked_for(path))
    except Exception as problem:  # as above
        broken = str(problem) or type(problem).__name__
    needs = sorted(asked.difference(allowed))
    if not needs and not broken and isinstance(error, pickle.UnpicklingError):
        reason = re.search(r'WeightsUnpickler error:\s*(.+)', str(error))
        needs = [f'more than the restricted reader has ({reason[1] if reason else error})']
    if not needs:
        return damaged(path, broken or str(error))
    return UntrustedCheckpointError(
        f'{path} is not read: it asks for {", ".join(needs)}, and a checkpoint that asks for more '
        f'than tensors and plain data may run code. Where you trust its author, give {TRUST_FLAG}'
    )


def _names_asked_for(path: Path) -> Iterator[str]:
    """The dotted names that the pickles in a torch file ask for, found without running them."""
    with path.open('rb') as stream:
        if stream.peek(4).startswith(ZIP_MAGIC):
            with zipfile.ZipFile(stream) as archive:
                name = next((n for n in archive.namelist() if n.endswith('/data.pkl')), None)
                if name is None:
                    raise ValueError('a zip archive without data.pkl')
                with archive.open(name) as file:
                    yield from _globals_of(file)
            return
        for _ in range(_LEGACY_PICKLES):
            if stream.peek(1):
                yield from _globals_of(stream)


def _globals_of(stream: IO[bytes]) -> Iterator[str]:
    """The dotted names that the next pickle of ``stream`` asks for."""
    texts: list[str] = []
    memo: dict[int, str] = {}
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name in ('GLOBAL', 'INST'):
            yield _modern_name(*str(argument).split(' ', 1))
        elif opcode.name == 'STACK_GLOBAL':
            yield _modern_name(*texts[-2:])
        elif 'UNICODE' in opcode.name:
            texts.append(str(argument))
        elif opcode.name == 'MEMOIZE':
            memo[len(memo)] = texts[-1] if texts else ''
        elif 'GET' in opcode.name and argument in memo:
            texts.append(memo[argument])


def _modern_name(module: str, name: str) -> str:
    # Protocols up to 2 spell modules as Python 2 did: __builtin__ and the like.
    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
    return f'{module}.{name}'
