"""Matrices that stay as they are, laid once the way that oneDNN's products read them.

oneDNN reads a matrix in blocks. One that lies as torch lays it is copied into blocks by every call,
which takes a tenth of the time where few positions are multiplied with it.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary


@dataclass(frozen=True)
class _Packed:
    """What was made of a parameter in one state, by the place of the matrix in it."""

    state: tuple
    matrices: dict[tuple, Tensor] = field(default_factory=dict)


_all: WeakTensorKeyDictionary = WeakTensorKeyDictionary()


def packed(weight: Tensor) -> Tensor:
    """``weight`` (C_out, C_in) for products of oneDNN, which alone can read the result.

    It is made once for a parameter, or a part of one, and kept as long as that lives. Where the
    parameter was changed since, as loading weights, moving or casting a module or an optimizer does
    it, it is made again. What changes a parameter through its ``data`` in place is not seen.

    A tensor that is no part of a parameter is given back as it is.
    """
    whole = weight if weight._base is None else weight._base
    if not isinstance(whole, nn.Parameter) or whole.is_inference():
        return weight
    # The weak reference keeps the storage's address from being given to another.
    state = whole._version, whole.dtype, StorageWeakRef(whole.untyped_storage())  # type: ignore[no-untyped-call]
    found = _all.get(whole)  # type: ignore[no-untyped-call]
    if found is None or found.state != state:
        found = _all[whole] = _Packed(state)
    place = weight.storage_offset(), weight.shape, weight.stride()
    if place not in found.matrices:
        plain = weight.detach().contiguous()
        found.matrices[place] = torch.ops.mkldnn._reorder_linear_weight(plain)
    return found.matrices[place]
