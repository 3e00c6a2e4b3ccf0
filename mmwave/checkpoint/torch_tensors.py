"""Nodes for torch's tensors and storages."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .nodes import AsksForMoreError, Builder, Name, Node, described, not_a_weight
from .stand_ins import PLAIN, table_of

_MAX_DIMENSIONS = 64
_TOO_LARGE = 1 << 63

_STORAGES = {
    'Double': torch.float64,
    'Float': torch.float32,
    'Half': torch.float16,
    'BFloat16': torch.bfloat16,
    'Long': torch.int64,
    'Int': torch.int32,
    'Short': torch.int16,
    'Char': torch.int8,
    'Byte': torch.uint8,
    'Bool': torch.bool,
    'ComplexDouble': torch.complex128,
    'ComplexFloat': torch.complex64,
    'QInt8': torch.qint8,
    'QInt32': torch.qint32,
    'QUInt8': torch.quint8,
    'QUInt4x2': torch.quint4x2,
    'QUInt2x4': torch.quint2x4,
}
_QUANTISED = frozenset(dtype for name, dtype in _STORAGES.items() if name.startswith('Q'))


class StorageType(Name):
    """A class of storages; ``dtype`` is uint8 for the one without a type."""

    __slots__ = ('dtype',)

    def __init__(self, dotted: str, dtype: torch.dtype) -> None:
        super().__init__(dotted)
        self.dtype = dtype


@dataclass(frozen=True, slots=True, eq=False)
class Storage(Node):
    """Where a tensor's numbers are: ``numel`` of them in the storage ``key``, from ``start`` on."""

    key: str
    dtype: torch.dtype
    numel: int
    start: int = 0

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.numel * self.dtype.itemsize

    def built(self, builder: Builder, where: str, depth: int) -> Any:
        raise not_a_weight(where, 'a bare storage')


class Storages:
    """The storages that a pickle refers to by its persistent ids.

    Attributes:
        found: key -> the whole storage.
    """

    def __init__(self) -> None:
        self.found: dict[str, Storage] = {}

    def __call__(self, persistent_id: Any) -> Storage:
        if type(persistent_id) is not tuple or not 5 <= len(persistent_id) <= 6:
            raise AsksForMoreError(['a persistent id that is no storage'])
        word, kind, key, _, numel, *views = persistent_id
        if word != 'storage' or not isinstance(kind, StorageType) or type(key) is not str:
            raise AsksForMoreError(['a persistent id that is no storage'])
        whole = Storage(key, kind.dtype, _checked(numel))
        known = self.found.setdefault(key, whole)
        if (known.dtype, known.numel) != (whole.dtype, whole.numel) and (known.size or whole.size):
            raise ValueError('a storage is declared twice, with different sizes or types')
        view = views[0] if views else None
        if view is None:
            return whole
        _, start, size = view  # of files written by torch 0.3 and before
        if _checked(start) + _checked(size) > numel:
            raise ValueError('a view reaches beyond its storage')
        return Storage(key, kind.dtype, size, start)


class TensorNode(Node):
    """A tensor, which is a view of a storage."""

    __slots__ = (
        'conjugate',
        'dtype',
        'nbytes',
        'negative',
        'offset',
        'requires_grad',
        'shape',
        'storage',
        'stride',
    )

    def __init__(
        self,
        storage: Any,
        offset: Any,
        size: Any,
        stride: Any,
        requires_grad: Any = False,
        dtype: torch.dtype | None = None,
        flags: Any = None,
    ) -> None:
        if not isinstance(storage, Storage):
            raise AsksForMoreError([f'a tensor of {described(storage)}'])
        self.storage = storage
        self.dtype = storage.dtype if dtype is None else dtype
        self.offset = storage.start + _checked(offset)
        self.shape, self.stride = _checked_sizes(size), _checked_sizes(stride)
        if len(self.shape) != len(self.stride):
            raise ValueError('a tensor with strides for another number of dimensions')
        self.requires_grad = requires_grad is True and self.dtype.is_floating_point
        flags = flags if isinstance(flags, dict) else {}
        self.negative, self.conjugate = flags.get('neg') is True, flags.get('conj') is True
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        last = self.offset + sum((n - 1) * s for n, s in zip(self.shape, self.stride, strict=True))
        end = storage.start * storage.dtype.itemsize + storage.size
        if self.nbytes and (last + 1) * self.dtype.itemsize > end:
            raise ValueError('a tensor reaches beyond its storage')

    def built(self, builder: Builder, where: str, depth: int) -> Any:
        if self.dtype in _QUANTISED:
            raise not_a_weight(where, 'a quantised tensor')
        if builder.storage is None:
            raise AsksForMoreError(['tensors of torch'])
        content = builder.storage(self.storage.key)
        empty = torch.empty(0, dtype=self.dtype, device='cpu')
        tensor = empty.set_(content, self.offset, self.shape, self.stride)
        if self.negative:
            tensor = tensor.neg()
        if self.conjugate:
            tensor = tensor.conj()
        return tensor.requires_grad_() if self.requires_grad else tensor


class ParameterNode(Node):
    """An ``nn.Parameter`` of a tensor."""

    __slots__ = ('data', 'nbytes', 'requires_grad')

    def __init__(self, data: Any = None, requires_grad: Any = True, *_: Any) -> None:
        self.data = data
        self.nbytes = 0  # those of the data are counted already
        self.requires_grad = requires_grad

    def set_state(self, state: Any) -> None:
        # As torch's releases of 2017 wrote parameters.
        if type(state) is tuple and len(state) == 5:
            self.data, self.requires_grad = state[0], state[3]
        elif type(state) is tuple and len(state) == 4:
            self.data = _tensor(*state)
            self.nbytes = self.data.nbytes
        elif type(state) is tuple and len(state) == 3:
            self.requires_grad = state[0]
        else:
            raise AsksForMoreError(['attributes of a parameter'])

    def built(self, builder: Builder, where: str, depth: int) -> Any:
        data = builder.build(self.data, where, depth)
        if not isinstance(data, torch.Tensor):
            raise AsksForMoreError([f'a parameter of {described(self.data)}'])
        return nn.Parameter(
            data.detach(), self.requires_grad is True and data.dtype.is_floating_point
        )


class UnfitTensor(Node):
    """A tensor of a kind that no weights are of; it is reported by its name, and not made."""

    __slots__ = ('kind',)

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def set_state(self, state: Any) -> None:
        """Leave the state aside."""

    def built(self, builder: Builder, where: str, depth: int) -> Any:
        raise not_a_weight(where, self.kind)


def _checked(number: Any) -> int:
    if type(number) is not int or not 0 <= number < _TOO_LARGE:
        raise ValueError('a size or an offset is no integer from 0 to 2^63 - 1')
    return number


def _checked_sizes(sizes: Any) -> tuple[int, ...]:
    if not isinstance(sizes, tuple) or len(sizes) > _MAX_DIMENSIONS:
        raise ValueError(f'the sizes of a tensor are no tuple of at most {_MAX_DIMENSIONS}')
    if math.prod(max(_checked(n), 1) for n in sizes) >= _TOO_LARGE:
        raise ValueError('a tensor with 2^63 elements or more')
    return tuple(sizes)


def _tensor(storage: Any, offset: Any, size: Any, stride: Any) -> TensorNode:
    return TensorNode(storage, offset, size, stride)


def _tensor_v2(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, _: Any, flags: Any = None
) -> TensorNode:
    return TensorNode(storage, offset, size, stride, grad, flags=flags)


def _tensor_v3(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    grad: Any,
    _: Any,
    dtype: Any,
    flags: Any = None,
) -> TensorNode:
    if not isinstance(dtype, torch.dtype):
        raise AsksForMoreError([f'a tensor whose dtype is {described(dtype)}'])
    return TensorNode(storage, offset, size, stride, grad, dtype, flags)


def _with_attributes(function: Any, cls: Any, arguments: Any, _: Any) -> Any:
    """Return a tensor that attributes were set on, without them."""
    known = (
        isinstance(function, Name) and function.call and function.dotted.startswith('torch._utils.')
    )
    if not known or cls not in (TENSORS['torch.Tensor'], TENSORS[_PARAMETER]):
        raise AsksForMoreError([f'a tensor of the class {described(cls)}'])
    return function.call(*arguments)


def _of_another_device(data: Any, dtype: Any, *_: Any) -> Any:
    """Return a tensor that was copied to the host to be saved."""
    if not isinstance(data, TensorNode) or data.dtype != dtype:
        return UnfitTensor('a tensor of another device')
    return data


def _size(sizes: Any = ()) -> torch.Size:
    return torch.Size(_checked_sizes(sizes))


def _device(kind: Any, index: Any = None) -> torch.device:
    if type(kind) is not str or not isinstance(index, int | None):
        raise ValueError('a device without a name')
    return torch.device(kind) if index is None else torch.device(kind, index)


def _layout(name: Any) -> torch.layout:
    layouts = {str(v): v for v in vars(torch).values() if isinstance(v, torch.layout)}
    return layouts[name]


_PARAMETER = 'torch.nn.parameter.Parameter'
_CONSTANTS = (torch.dtype, type(torch.per_tensor_affine))

TENSORS: dict[str, Any] = {
    **PLAIN,
    **{f'torch.{name}': v for name, v in vars(torch).items() if isinstance(v, _CONSTANTS)},
    **{
        f'torch.{place}{name}Storage': StorageType(f'torch.{place}{name}Storage', dtype)
        for name, dtype in _STORAGES.items()
        for place in ('', 'cuda.')
    },
    **{
        name: StorageType(name, torch.uint8)
        for name in ('torch.storage.UntypedStorage', 'torch.storage._UntypedStorage')
    },
    **table_of(
        {
            'torch.Tensor': None,
            _PARAMETER: ParameterNode,
            'torch.Size': _size,
            'torch.device': _device,
            'torch.serialization._get_layout': _layout,
            'torch._utils._rebuild_tensor': _tensor,
            'torch._utils._rebuild_tensor_v2': _tensor_v2,
            'torch._utils._rebuild_tensor_v3': _tensor_v3,
            'torch._utils._rebuild_parameter': ParameterNode,
            'torch._utils._rebuild_parameter_with_state': ParameterNode,
            'torch._tensor._rebuild_from_type_v2': _with_attributes,
            'torch._utils._rebuild_device_tensor_from_cpu_tensor': _of_another_device,
        }
    ),
    **table_of(
        {
            f'torch._utils._rebuild_{name}': lambda *_, kind=kind: UnfitTensor(kind)
            for name, kind in {
                'sparse_tensor': 'a sparse tensor',
                'qtensor': 'a quantised tensor',
                'nested_tensor': 'a nested tensor',
                'meta_tensor_no_storage': 'a meta tensor, which has no values',
                'wrapper_subclass': 'a tensor of a subclass',
                'device_tensor_from_numpy': 'a tensor of another device',
            }.items()
        }
    ),
}
"""What a torch file may ask for."""
