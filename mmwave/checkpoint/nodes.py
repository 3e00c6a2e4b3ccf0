"""What a pickle describes, and plain data built of the description.

The restricted unpickler makes plain Python data and *nodes*. A node describes an object: it says
what the object is to be, and holds nothing but what the file said of it. Objects are built only
after the whole pickle was read and its declarations were checked.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from mmwave.errors import UserError, printable

_MAX_DEPTH = 100
_SPARE_ITEMS = 1_000_000
_ITEMS_PER_BYTE = 10

_LEAVES = frozenset(
    {str, int, float, bool, complex, bytes, bytearray, type(None)}
    | {torch.dtype, torch.device, torch.Size, torch.layout, type(torch.per_tensor_affine)}
)
_KEYS = frozenset({str, bytes, bool, float, type(None)})
_MAX_KEY_INTEGER = 1 << 60  # a larger one's hash can be that of a smaller one
_MAX_KEY_ITEMS = 8


class AsksForMoreError(Exception):
    """A file asks for more than tensors and plain data.

    Args:
        names: dotted names or descriptions of what it asks for.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        super().__init__(', '.join(self.names))


class Name:
    """A dotted name that a pickle may ask for.

    Attributes:
        dotted: the name.
        call: what is done where the pickle calls the object of that name; None where it may not.
    """

    __slots__ = ('call', 'dotted')

    def __init__(self, dotted: str, call: Callable[..., Any] | None = None) -> None:
        self.dotted = dotted
        self.call = call


class Node:
    """A description of an object in a pickle.

    Attributes:
        nbytes: size of the data that the object declares to hold.
    """

    __slots__ = ()
    nbytes: int = 0

    def set_state(self, state: Any) -> None:
        """Accept the state of the object in the pickle."""
        raise AsksForMoreError([f'attributes of {described(self)}'])

    def built(self, builder: 'Builder', where: str, depth: int) -> Any:
        """Return the object; ``where`` is the nearest name in front of it in the file."""
        raise NotImplementedError


def described(value: Any) -> str:
    """Return a short text on a value of a pickle, whatever it holds."""
    if isinstance(value, Name):
        return printable(value.dotted)
    if type(value) is str:
        return repr(printable(value))
    return f'an object of type {type(value).__name__.strip("_")}'


def not_a_weight(name: str, kind: str) -> UserError:
    """Return the error for a tensor that no module can compute with."""
    return UserError(f'{printable(name)} is {kind}: expected a dense tensor of real numbers')


def checked_key(key: Any) -> Any:
    """Return ``key`` where it can be a key of a dict or an item of a set.

    Hashes of texts and bytes are random; others can be made to collide, or take exponential time.
    """
    if type(key) in _KEYS or (type(key) is int and abs(key) < _MAX_KEY_INTEGER):
        return key
    if isinstance(key, np.generic) and key.dtype.kind in 'biufSU':
        return key
    if type(key) is tuple and len(key) <= _MAX_KEY_ITEMS:
        for item in key:
            if type(item) is tuple:
                raise ValueError('a tuple of tuples is the key of a dict')
            checked_key(item)
        return key
    raise ValueError(f'{described(key)} is the key of a dict')


class Builder:
    """Replace every node by its object; dicts, lists and sets are changed in place.

    What the pickle shares stays shared, and a container may hold itself.

    Args:
        size: of the file in bytes.
        storage: content of a tensor's storage, by its key.
    """

    def __init__(
        self, size: int, storage: Callable[[str], torch.UntypedStorage] | None = None
    ) -> None:
        self.storage = storage
        # Items that were visited, those of a shared container once for every time it is shared: so
        # many would be printed or copied by somebody who follows every reference.
        self._items = 0
        self._max_items = _SPARE_ITEMS + _ITEMS_PER_BYTE * size
        # By the id of the value: the value, kept so that its id stays its own; the result; items.
        self._known: dict[int, list[Any]] = {}

    def build(self, value: Any, where: str = '', depth: int = 0) -> Any:
        """Return ``value`` without nodes.

        Raises:
            AsksForMoreError: where a class or a function stands as a value.
            UserError: for a tensor that cannot be a weight.
            ValueError: for data that is nested too deeply or shared too often.
        """
        self._items += 1
        if type(value) in _LEAVES or isinstance(value, np.generic):
            return value
        entry = self._known.get(id(value))
        if entry is not None:
            self._items += entry[2]
            self._check_items()
            if entry[1] is self:
                raise ValueError('an object holds itself')
            return entry[1]
        if depth > _MAX_DEPTH:
            raise ValueError(f'its data is nested more than {_MAX_DEPTH} levels deep')
        self._check_items()
        before = self._items
        entry = self._known[id(value)] = [value, self, 0]
        entry[1] = self._built(value, where, depth + 1)
        entry[2] = self._items - before
        return entry[1]

    def register(self, node: Node, result: Any) -> None:
        """Have references to ``node`` inside of it become ``result``, which is still incomplete."""
        self._known[id(node)][1] = result

    def _check_items(self) -> None:
        if self._items > self._max_items:
            raise ValueError(f'its data refers to itself in more than {self._max_items} ways')

    def _built(self, value: Any, where: str, depth: int) -> Any:
        if isinstance(value, Node):
            return value.built(self, where, depth)
        kind = type(value)
        if kind is tuple:
            return tuple([self.build(item, where, depth) for item in value])
        if kind is dict:
            self._known[id(value)][1] = value
            for key, item in value.items():
                value[key] = self.build(item, key if type(key) is str else where, depth)
            return value
        if kind is list:
            self._known[id(value)][1] = value
            for i, item in enumerate(value):
                value[i] = self.build(item, where, depth)
            return value
        if kind is set:
            return value  # its items were checked to be plain when they were added
        raise AsksForMoreError([f'{described(value)} as a value'])
