"""Nodes for plain Python objects, NumPy's arrays and mmengine's histories.

NumPy's own rebuild functions are not let in: a pickled dtype may set the flags of its C struct, and
then bytes of the file are used as object pointers.
"""

import argparse
import math
import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from mmwave.errors import printable

from .nodes import AsksForMoreError, Builder, Name, Node, checked_key, described

_HISTORY = 'mmengine.logging.history_buffer.HistoryBuffer'
_HISTORY_STATISTICS = ('min', 'max', 'current', 'mean')
_ARRAY = 'numpy.ndarray'
_DTYPE = re.compile(r'[<>=|]?[a-zA-Z?]\d{0,9}')


class Fields(Node, dict):
    """A dict of another class: ``OrderedDict``, ``Counter``, the settings of a training script.

    It becomes a dict, or a ``Counter``; a state dict with the versions of its modules, which torch
    stores in the attribute ``_metadata``, an ``OrderedDict`` with no other attribute.
    """

    __slots__ = ('dotted', 'metadata')

    def __init__(self, dotted: str, items: Mapping[Any, Any] | None = None) -> None:
        super().__init__(items or {})
        self.dotted = dotted
        self.metadata: Any = None

    def set_state(self, state: Any) -> None:
        if isinstance(state, dict) and self.dotted == 'collections.OrderedDict':
            self.metadata = dict.get(state, '_metadata')

    def built(self, builder: Builder, where: str, depth: int) -> Any:
        result: dict[Any, Any] = {}
        if self.dotted == 'collections.Counter':
            result = Counter()
        if self.metadata is not None:
            result = OrderedDict()
        builder.register(self, result)
        for key, item in dict.items(self):
            result[key] = builder.build(item, key if type(key) is str else where, depth)
        if self.metadata is not None:
            versions = builder.build(self.metadata, where, depth)
            result._metadata = _checked_versions(versions)  # type: ignore[attr-defined]
        return result


def _checked_versions(metadata: Any) -> dict[str, Any]:
    """Return what torch stores of a state dict's modules: for every name a dict with a version."""
    known = isinstance(metadata, dict) and all(
        type(name) is str
        and isinstance(entry, dict)
        and isinstance(entry.get('version'), int | None)
        for name, entry in metadata.items()
    )
    if not known:
        raise ValueError('the _metadata of a state dict are no versions of modules')
    return metadata


class Attributes(Node):
    """An ``argparse.Namespace``."""

    __slots__ = ('state',)

    def __init__(self) -> None:
        self.state: Any = {}

    def set_state(self, state: Any) -> None:
        self.state = state

    def built(self, builder: Builder, where: str, depth: int) -> argparse.Namespace:
        result = argparse.Namespace()
        builder.register(self, result)
        state = builder.build(self.state, where, depth)
        if not isinstance(state, dict):
            raise ValueError('the state of an argparse.Namespace is no dict')
        for name in state:
            if type(name) is not str or hasattr(argparse.Namespace, name):
                raise ValueError(f'an argparse.Namespace with the attribute {described(name)}')
        vars(result).update(state)
        return result


class Dtype(Node):
    """A ``numpy.dtype``: numbers and fixed-length text only."""

    __slots__ = ('dtype',)

    def __init__(self, spec: Any, *_: Any) -> None:
        if type(spec) is not str or not _DTYPE.fullmatch(spec):
            raise AsksForMoreError([f'NumPy data of dtype {described(spec)}'])
        self.dtype = np.dtype(spec)
        if self.dtype.kind not in 'biufcSU':
            raise AsksForMoreError([f'NumPy data of dtype {self.dtype}'])

    def set_state(self, state: Any) -> None:
        order = state[1]
        self.dtype = self.dtype.newbyteorder(order if order in ('<', '>') else '=')

    def built(self, builder: Builder, where: str, depth: int) -> Any:
        return self.dtype


class Array(Node):
    """A ``numpy.ndarray``."""

    __slots__ = ('content', 'dtype', 'nbytes', 'order', 'shape')

    def __init__(self) -> None:
        self.nbytes = -1

    def set_state(self, state: Any) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, Dtype) or not isinstance(content, bytes | bytearray):
            raise AsksForMoreError(['NumPy data that is not in the file as bytes'])
        if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
            raise ValueError('the shape of an array is no tuple of sizes')
        self.dtype, self.shape = dtype.dtype, shape
        self.order: Any = 'F' if fortran else 'C'
        self.content: bytes | bytearray = content
        self.nbytes = len(content)
        if math.prod(shape) * self.dtype.itemsize != self.nbytes:
            raise ValueError(
                f'cannot reshape an array of {self.nbytes} bytes into {printable(shape)} of '
                f'{self.dtype}'
            )

    def built(self, builder: Builder, where: str, depth: int) -> Any:
        if self.nbytes < 0:
            raise ValueError('an array without content')
        shared: Any = np.ndarray(self.shape, self.dtype, self.content, order=self.order)
        self.content = b''  # else the file's bytes and all copies would be there at once
        return shared.copy(order='K')


class History(Node):
    """mmengine's ``HistoryBuffer``; its table of functions is left in the file."""

    __slots__ = ('state',)

    def __init__(self) -> None:
        self.state: Any = None

    def set_state(self, state: Any) -> None:
        self.state = state

    def built(self, builder: Builder, where: str, depth: int) -> Any:
        from mmengine.logging import HistoryBuffer

        if not isinstance(self.state, dict):
            raise ValueError('the state of a HistoryBuffer is no dict')
        log, counts, length = (
            builder.build(dict.get(self.state, name), where, depth)
            for name in ('_log_history', '_count_history', 'max_length')
        )
        if not _is_row(log) or not _is_row(counts) or len(log) != len(counts):
            raise ValueError('a HistoryBuffer without two arrays of numbers of one length')
        if type(length) is not int or not len(log) <= length < 1 << 63:
            raise ValueError('a HistoryBuffer with more values than its max_length')
        return HistoryBuffer(log, counts, length)


def _is_row(array: Any) -> TypeGuard[NDArray[Any]]:
    return isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in 'biuf'


def _reconstruct(cls: Any, *_: Any) -> Array:
    if not isinstance(cls, Name) or cls.dotted != _ARRAY:
        raise AsksForMoreError(['a subclass of numpy.ndarray'])
    return Array()


def _frombuffer(content: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> Array:
    if axes is not None:
        raise AsksForMoreError(['an array of axes in another order'])
    array = Array()
    array.set_state((1, shape, dtype, order == 'F', content))
    return array


def _scalar(dtype: Any, content: Any) -> Any:
    if not isinstance(dtype, Dtype) or type(content) is not bytes:
        raise AsksForMoreError(['a NumPy scalar that is not in the file as bytes'])
    if len(content) != dtype.dtype.itemsize:
        raise ValueError(f'a NumPy scalar of {dtype.dtype} with {len(content)} bytes')
    return np.ndarray((), dtype.dtype, content)[()]


def _statistic(owner: Any, name: Any, *_: Any) -> None:
    known = isinstance(owner, Name) and owner.dotted == _HISTORY
    if not known or name not in _HISTORY_STATISTICS:
        raise AsksForMoreError([f'builtins.getattr of {described(owner)}, {described(name)}'])


def _latin1(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding not in ('latin1', 'latin-1'):
        raise AsksForMoreError([f'bytes in the encoding {described(encoding)}'])
    return text.encode('latin1')


def _bytes() -> bytes:
    return b''


def _bytearray(content: Any = b'', encoding: Any = None) -> bytearray:
    """Return bytes that are in the file; a length alone would make as many zeros."""
    if encoding is not None:
        return bytearray(_latin1(content, encoding))
    if type(content) is not bytes:
        raise AsksForMoreError([f'a bytearray of {described(content)}'])
    return bytearray(content)


def _complex(real: Any, imaginary: Any) -> complex:
    if type(real) is not float or type(imaginary) is not float:
        raise ValueError('a complex number whose parts are no floating-point numbers')
    return complex(real, imaginary)


def _set(items: Any = ()) -> set[Any]:
    if type(items) not in (list, tuple):
        raise AsksForMoreError([f'a set of {described(items)}'])
    return {checked_key(item) for item in items}


def _tuple(items: Any = ()) -> tuple[Any, ...]:
    if type(items) not in (list, tuple):
        raise AsksForMoreError([f'a tuple of {described(items)}'])
    return tuple(items)


def _fields(dotted: str) -> Callable[..., Fields]:
    def make(items: Any = ()) -> Fields:
        # Protocol 2 of Python 2 stores the items of an OrderedDict as a list of pairs.
        pairs = dict.items(items) if isinstance(items, dict) else items
        return Fields(dotted, {checked_key(key): value for key, value in pairs})

    return make


def table_of(calls: Mapping[str, Callable[..., Any] | None]) -> dict[str, Any]:
    """Return the stand-ins for the objects of some names."""
    return {dotted: Name(dotted, call) for dotted, call in calls.items()}


ARRAYS: dict[str, Any] = table_of(
    {
        _ARRAY: None,
        'numpy.dtype': Dtype,
        'numpy.core.multiarray._reconstruct': _reconstruct,
        'numpy._core.multiarray._reconstruct': _reconstruct,
        'numpy.core.numeric._frombuffer': _frombuffer,  # of protocol 5
        'numpy._core.numeric._frombuffer': _frombuffer,
        'numpy.core.multiarray.scalar': _scalar,
        'numpy._core.multiarray.scalar': _scalar,
        'builtins.tuple': _tuple,
        'builtins.bytes': _bytes,  # how protocol 2 spells empty ones
        '_codecs.encode': _latin1,  # how protocol 2 spells others
        'collections.OrderedDict': _fields('collections.OrderedDict'),
    }
)
"""What a pickle of arrays may ask for."""

PLAIN: dict[str, Any] = ARRAYS | table_of(
    {
        'builtins.set': _set,
        'builtins.complex': _complex,
        'builtins.bytearray': _bytearray,
        'collections.Counter': _fields('collections.Counter'),
        'argparse.Namespace': Attributes,
        'yacs.config.CfgNode': _fields('yacs.config.CfgNode'),
        _HISTORY: History,
        # How pickle spells ``HistoryBuffer.mean``, which every such buffer carries along.
        'builtins.getattr': _statistic,
    }
)
"""What a torch file may ask for besides tensors."""
