"""Plain values in a model that change while it trains and that no state dict has.

``BatchSyncRandomResize`` of mmdet keeps the size of the images for some iterations,
``DynamicRoIHead`` its thresholds. What is a number, a text, None or a list of these is written to
the checkpoint where it has changed since the training began. An object in which anything else has
changed too is left alone: a cached grid of pixels does without its size better than with it alone.
"""

from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from types import FunctionType, MethodType, ModuleType
from typing import Any

from torch import Tensor, nn

_MOST_ITEMS = 10_000
_OF_EVERY_MODULE = frozenset(vars(nn.Module()))
_NO_OWNERS = (nn.Module, Tensor, Mapping, type, FunctionType, MethodType, ModuleType)

Values = dict[str, dict[str, Any]]


class ModuleValues:
    """The plain values of a model at the beginning of a training.

    Args:
        model: not wrapped; initialized.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._first = {name: _values(owner) for name, owner in _owners(model)}

    def changed(self) -> Values:
        """Return what has changed, by the name of the owner and the attribute."""
        found = {}
        for name, owner in _owners(self._model):
            first = self._first.get(name)
            if first is None:
                continue  # exchanged meanwhile
            now = _values(owner)
            news = {k: v for k, v in now.items() if k not in first or first[k] != v}
            if news and not any(isinstance(v, _Other) for v in news.values()):
                found[name] = {key: _plain(vars(owner)[key]) for key in news}
        return found

    def restore(self, values: Values) -> None:
        """Set values that :meth:`changed` returned, as far as the model has their owners."""
        owners = dict(_owners(self._model))
        for name, given in values.items():
            for attribute, value in given.items():
                if name in owners and _may_set(owners[name], attribute):
                    setattr(owners[name], attribute, value)


def is_values(given: Any) -> bool:
    """Return whether ``given`` can be what :meth:`ModuleValues.changed` returned."""
    return isinstance(given, dict) and all(
        isinstance(name, str)
        and isinstance(held, dict)
        and all(isinstance(k, str) and _plain(v) is not _NOT_PLAIN for k, v in held.items())
        for name, held in given.items()
    )


class _Other:
    """An object that is no plain value, the same as long as it is not exchanged."""

    def __init__(self, thing: Any) -> None:
        self._id = id(thing)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Other) and other._id == self._id

    __hash__ = None  # type: ignore[assignment]


_NOT_PLAIN = object()


def _owners(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Iterate over modules and over the objects in their attributes, such as assigners."""
    for name, module in model.named_modules():
        yield name, module
        for attribute, thing in vars(module).items():
            if hasattr(thing, '__dict__') and not isinstance(thing, _NO_OWNERS):
                yield f'{name}:{attribute}', thing


def _values(owner: Any) -> dict[str, Any]:
    values = {}
    for name, value in vars(owner).items():
        if isinstance(owner, nn.Module) and name in _OF_EVERY_MODULE:
            continue
        plain = _plain(value)
        values[name] = _Other(value) if plain is _NOT_PLAIN else plain
    return values


def _plain(value: Any) -> Any:
    """Return a copy of a plain value in Python's own types, else ``_NOT_PLAIN``."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if type(value) in (list, tuple) and len(value) <= _MOST_ITEMS:
        items = [_plain(item) for item in value]
        return _NOT_PLAIN if _NOT_PLAIN in items else type(value)(items)
    return _NOT_PLAIN


def _may_set(owner: Any, attribute: str) -> bool:
    of_type = getattr(type(owner), attribute, None)
    method = callable(of_type) or hasattr(of_type, '__set__')
    if method or not attribute.isidentifier() or attribute in _OF_EVERY_MODULE:
        return False
    if attribute not in vars(owner) and hasattr(owner, attribute) and of_type is None:
        return False  # a child, a parameter or a buffer
    return _plain(vars(owner).get(attribute)) is not _NOT_PLAIN
