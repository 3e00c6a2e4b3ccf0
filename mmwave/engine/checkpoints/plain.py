"""A checkpoint of tensors and Python's own types: every library reads it without running code.

``torch.load(weights_only=True)`` knows no class of mmengine and no type of NumPy. mmengine writes
both: the histories of logged scalars, and what metrics and data sets put into its message hub.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from torch import Tensor

from mmwave.checkpoint import brief
from mmwave.errors import UserError

HISTORIES = 'histories'
"""Entry of ``message_hub``, which mmengine's own reader passes over: name -> values and counts."""

_EXACT = (bool, int, float, complex, str, bytes, bytearray, torch.Size, torch.dtype, torch.device)


def make_plain(checkpoint: dict[str, Any]) -> list[str]:
    """Replace, in place, what is neither a tensor nor of one of Python's own types.

    Numbers and texts of NumPy become Python's, arrays become tensors, in ``meta`` lists. Histories
    move from ``message_hub.log_scalars`` to ``message_hub.histories``; the names in
    ``resumed_keys`` that belong to them are left out, or mmengine would warn of each.

    Args:
        checkpoint: as mmengine is about to write it; what it holds is copied, not changed.

    Returns:
        The names and types of objects that have no such form and stay as they are.
    """
    others: list[str] = []
    for key, value in list(checkpoint.items()):
        if key == 'message_hub' and isinstance(value, Mapping):
            value = _without_histories(value)
        checkpoint[key] = _Plain(others, as_lists=key == 'meta').of(value, str(key))
    return others


def with_histories(hub: Any) -> Any:
    """Return a checkpoint's message hub as mmengine loads it, with histories of its own type.

    Args:
        hub: as :func:`make_plain` or mmengine left it; what is no dict is returned as it is.

    Raises:
        UserError: where the histories are damaged.
    """
    if not isinstance(hub, dict) or HISTORIES not in hub:
        return hub
    kept = {part: held for part, held in hub.items() if part != HISTORIES}
    scalars, keys = kept.get('log_scalars'), kept.get('resumed_keys')
    if not isinstance(scalars, dict) or not isinstance(keys, dict):
        return kept  # damaged, which is for the caller to say
    if not isinstance(hub[HISTORIES], dict):
        raise UserError(f'its message_hub.{HISTORIES} is {brief(hub[HISTORIES])}, expected a dict')
    found = {name: _history(name, held) for name, held in hub[HISTORIES].items()}
    kept['log_scalars'] = {**found, **scalars}
    kept['resumed_keys'] = {**dict.fromkeys(found, True), **keys}
    return kept


def same_metainfo(noted: Any, own: Any) -> bool:
    """Return whether a description of a data set is what :func:`make_plain` makes of ``own``."""
    try:
        return bool(_Plain([], as_lists=True).of(own, '') == noted)
    except (RecursionError, RuntimeError, TypeError, ValueError):  # of whatever is in there
        return False


def _without_histories(hub: Mapping[str, Any]) -> dict[str, Any]:
    parts = dict(hub)
    scalars, info = parts.get('log_scalars') or {}, parts.get('runtime_info') or {}
    histories = {
        name: {'values': held.data[0], 'counts': held.data[1], 'max_length': held.max_length}
        for name, held in scalars.items()
        if isinstance(held, HistoryBuffer) and all(_is_row(array) for array in held.data)
    }
    parts['log_scalars'] = {k: v for k, v in scalars.items() if k not in histories}
    known = parts['log_scalars'].keys() | info.keys()
    keys = parts.get('resumed_keys') or {}
    parts['resumed_keys'] = {name: flag for name, flag in keys.items() if name in known}
    parts[HISTORIES] = histories
    return parts


def _is_row(array: Any) -> bool:
    return isinstance(array, np.ndarray) and array.ndim == 1 and array.dtype.kind in 'iuf'


def _history(name: Any, held: Any) -> HistoryBuffer:
    rows = [held.get(part) for part in ('values', 'counts')] if isinstance(held, dict) else []
    numeric = [
        isinstance(row, Tensor) and row.dim() == 1 and not (row.is_complex() or row.is_sparse)
        for row in rows
    ]
    length = held.get('max_length') if isinstance(held, dict) else None
    if not (numeric and all(numeric)) or type(length) is not int:
        raise UserError(f'its message_hub.{HISTORIES} holds no history of numbers as {brief(name)}')
    values, counts = (row.numpy() for row in rows)
    if not 0 < len(values) == len(counts) <= length:
        raise UserError(
            f'its message_hub.{HISTORIES} holds {len(values)} values and {len(counts)} counts as '
            f'{brief(name)}, of {length} at most'
        )
    return HistoryBuffer(values, counts, length)


class _Plain:
    """Copies of values in plain types.

    Args:
        others: is extended by the names of what has no such form.
        as_lists: whether arrays become lists, else tensors.
    """

    def __init__(self, others: list[str], *, as_lists: bool) -> None:
        self._others = others
        self._as_lists = as_lists

    def of(self, value: Any, name: str) -> Any:
        if value is None or type(value) in _EXACT or isinstance(value, Tensor):
            return value
        number = _number(value)
        if number is not None:
            return number
        if isinstance(value, str | PurePath):
            return str.__str__(value) if isinstance(value, str) else str(value)
        if isinstance(value, bytes):
            return bytes(value)
        if isinstance(value, np.ndarray):
            return self._array(value, name)
        if isinstance(value, dict):
            return self._dict(value, name)
        if isinstance(value, list | tuple | deque):
            items = [self.of(item, f'{name}[{index}]') for index, item in enumerate(value)]
            return tuple(items) if isinstance(value, tuple) else items
        if isinstance(value, set | frozenset):
            return {self.of(item, name) for item in value}
        self._others.append(f'{name} of type {type(value).__module__}.{type(value).__qualname__}')
        return value

    def _dict(self, value: dict[Any, Any], name: str) -> dict[Any, Any]:
        items = ((self.of(k, name), self.of(v, f'{name}.{k}')) for k, v in value.items())
        if type(value) is Counter:  # milestones of a schedule
            return Counter(dict(items))
        if type(value) is not OrderedDict:
            return dict(items)
        copied = OrderedDict(items)
        if hasattr(value, '_metadata'):  # of a state dict: the versions of its modules
            copied._metadata = self.of(value._metadata, name)  # type: ignore[attr-defined]
        return copied

    def _array(self, value: np.ndarray[Any, Any], name: str) -> Any:
        if not self._as_lists:
            try:
                return torch.from_numpy(np.array(value, order='C'))
            except (TypeError, ValueError):  # texts, or numbers of a type that torch lacks
                pass
        return self.of(value.tolist(), name)


def _number(value: Any) -> bool | int | float | complex | None:
    """Return a number of a subclass or of NumPy as Python's own, else None."""
    for kinds, own in (
        ((bool, np.bool_), bool),
        ((int, np.integer), int),
        ((float, np.floating), float),
        ((complex, np.complexfloating), complex),
    ):
        if isinstance(value, kinds):
            return own(value)
    return None
