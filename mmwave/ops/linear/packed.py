"""Matrices that stay as they are, laid once the way that products read them.

oneDNN reads a matrix in blocks. One that lies as torch lays it is copied into blocks by every call,
which takes a tenth of the time where few positions are multiplied with it. Our own kernels read
pairs, see :func:`paired`.
"""

import weakref
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

COLUMNS = 32
"""Outputs that products of our own kernels take at a time."""

Made = TypeVar('Made')


@dataclass(frozen=True, eq=False)
class _Kept:
    """What was made of a parameter in one state, by how and the place of the matrix in it."""

    parameter: weakref.ref
    version: int
    dtype: torch.dtype
    storage: StorageWeakRef
    """Keeps the storage's address from being given to another."""
    made: dict[tuple, Any] = field(default_factory=dict)

    def is_of(self, whole: Tensor) -> bool:
        """Whether nothing happened to the parameter; another has another storage."""
        return (
            self.version == whole._version
            and self.dtype is whole.dtype
            and self.storage.cdata == whole.untyped_storage()._cdata
        )


_all: dict[int, _Kept] = {}
"""By the parameter's ``id``; gone with it."""


def kept(weight: Tensor, how: Hashable, make: Callable[[Tensor], Made]) -> Made | None:
    """``make(weight)``, made once for a parameter or a part of one and kept as long as that lives.

    Where the parameter was changed since, as loading weights, moving or casting a module or an
    optimizer does it, it is made again. What changes a parameter through its ``data`` in place is
    not seen.

    Args:
        weight: a parameter or a view of one.
        how: what tells ``make`` from others.
        make: called with ``weight`` detached.

    Returns:
        None for a tensor that is no part of a parameter.
    """
    whole = weight if weight._base is None else weight._base
    if not isinstance(whole, nn.Parameter) or whole.is_inference():
        return None
    found = _all.get(id(whole))
    if found is None or not found.is_of(whole):
        found = _all[id(whole)] = _begun(whole)
    key = how, weight.storage_offset(), weight.shape, weight.stride()
    if key not in found.made:
        found.made[key] = make(weight.detach())
    made: Made = found.made[key]
    return made


def _begun(whole: Tensor) -> _Kept:
    name = id(whole)

    def forget(reference: weakref.ref) -> None:
        found = _all.get(name)
        # The address may be another parameter's by now.
        if found is not None and found.parameter is reference:
            _all.pop(name, None)

    storage = StorageWeakRef(whole.untyped_storage())  # type: ignore[no-untyped-call]
    return _Kept(weakref.ref(whole, forget), whole._version, whole.dtype, storage)


def packed(weight: Tensor) -> Tensor:
    """``weight`` (C_out, C_in) for products of oneDNN, which alone can read the result.

    It is :func:`kept`; a tensor that is no part of a parameter is given back as it is.
    """
    found = kept(weight, 'oneDNN', lambda w: _reordered(w.contiguous()))
    return weight if found is None else found


def _reordered(plain: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(plain)


def paired(weight: Tensor, columns: int) -> Tensor:
    """``weight`` (C_out, C_in) of bfloat16 for the products of our own kernels.

    These take ``columns`` outputs at a time and multiply pairs of inputs: the result is
    (C_out / columns, C_in / 2, columns, 2), two values to an ``int32``.
    """
    outputs, inputs = weight.shape
    pairs = weight.reshape(outputs // columns, columns, inputs // 2, 2).transpose(1, 2)
    return pairs.contiguous().view(torch.int32).squeeze(-1)


def constant_pairs(weight: Tensor) -> Tensor:
    """A matrix that stays as it is, :func:`paired` by :data:`COLUMNS`, :func:`kept` if possible."""
    found = kept(weight, 'pairs', lambda w: paired(w, COLUMNS))
    return paired(weight, COLUMNS) if found is None else found
