"""Read published weight files; the format is detected by the content, and no code is run."""

import math
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from mmwave.checkpoint import (
    check_weights,
    container_of,
    damaged,
    load_arrays,
    opened_archive,
    read_checkpoint,
    read_into,
    state_dict_of,
)
from mmwave.errors import UserError, printable

Framework = Literal['pytorch', 'mindspore', 'paddle', 'jax']
Weights = Literal['model', 'ema']
"""Raw weights, or those averaged over the training."""
Choice = Callable[[Mapping[str, Tensor], Framework], bool]
"""Whether to use the averaged weights, by their tensors and what wrote them."""
EMA_KEYS = ('state_dict_ema', 'model_ema', 'ema')
"""Entries of a training checkpoint with averaged weights, as timm, DeiT and RepMLP name them."""

SETTINGS_KEYS = ('config', 'args', 'meta')
"""Entries of a checkpoint with settings of its training: Swin's, DeiT's and timm's, OpenMMLab's."""

_PADDLE_TABLE = 'StructuredToParameterName@@'

_NUMPY_BFLOAT16 = np.dtype('V2')
_WITHOUT_TENSORS = (np.dtype('longdouble'), np.dtype('clongdouble'))
_NPZ_COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NPY = '.npy'
_MAX_DIMENSIONS = 64

# checkpoint.proto of MindSpore: field numbers, and the values of TensorProto.tensor_type.
_CHECKPOINT_VALUE = 1
_VALUE_TAG, _VALUE_TENSOR = 1, 2
_TENSOR_DIMS, _TENSOR_TYPE, _TENSOR_CONTENT = 1, 2, 3
_CRC_MARK = b'crc_num'
_CRC_BYTES = 10
_MAX_TENSORS = 100_000
_TEXT = 'str'
_DTYPES = {
    'Int8': torch.int8,
    'UInt8': torch.uint8,
    'Int16': torch.int16,
    'UInt16': torch.uint16,
    'Int32': torch.int32,
    'UInt32': torch.uint32,
    'Int64': torch.int64,
    'UInt64': torch.uint64,
    'Float16': torch.float16,
    'Float32': torch.float32,
    'Float64': torch.float64,
    'BFloat16': torch.bfloat16,
    'Bool': torch.bool,
}


@dataclass(frozen=True)
class Source:
    """The weights in a file.

    Attributes:
        tensors: name -> tensor, in the file's order.
        framework: what wrote the file.
        weights: ``'ema'`` for tensors averaged over the training, else ``'model'``.
        notes: what was chosen or skipped in the file, a sentence each.
        stated: entries of a checkpoint beside its weights that state settings, those of
            :data:`SETTINGS_KEYS`.
    """

    tensors: dict[str, Tensor]
    framework: Framework
    weights: Weights
    notes: tuple[str, ...] = ()
    stated: Mapping[str, Any] = field(default_factory=dict)


def read(path: str | PathLike[str], *, ema: bool | Choice = True, trust: bool = False) -> Source:
    """Read a torch, safetensors, MindSpore or Paddle file, or an ``.npz`` of a JAX model.

    Args:
        path: a local file.
        ema: use the averaged weights of a training checkpoint where it has them, or what decides.
        trust: see :func:`mmwave.checkpoint.read_checkpoint`.

    Raises:
        FileNotFoundError: where there is no such file.
        UserError: where it is damaged, of another format, holds no state dict or tensors that
            cannot be weights, or would run code.
    """
    kind = container_of(path)
    path = Path(path).expanduser()
    if kind == 'other' and _begins_like_mindspore(path):
        tensors, texts = read_mindspore(path)
        check_weights(tensors)
        notes = tuple(f"skipped the text '{printable(name)}'" for name in texts)
        return Source(tensors, 'mindspore', 'model', notes)
    if kind == 'npz':
        tensors = read_npz(path)
        check_weights(tensors)
        return Source(tensors, 'jax', 'model')
    if kind == 'pickle':
        return _chosen(*_paddle_as_torch(load_arrays(path, trust=trust)), 'paddle', ema)
    return _chosen(read_checkpoint(path, trust=trust), (), 'pytorch', ema)


def _chosen(
    content: Any, notes: tuple[str, ...], framework: Framework, ema: bool | Choice
) -> Source:
    """Return the raw or the averaged weights of a checkpoint."""
    entries = content if isinstance(content, Mapping) else {}
    found = (k for k in EMA_KEYS if isinstance(entries.get(k), Mapping) and entries[k])
    averaged = next(found, None)
    stated = {key: entries[key] for key in SETTINGS_KEYS if key in entries}
    if averaged and ema:
        tensors = state_dict_of({'state_dict': content[averaged]})
        if ema is True or ema(tensors, framework):
            note = f'used the averaged weights (EMA), entry {averaged!r}'
            return Source(tensors, framework, 'ema', (*notes, note), stated)
    if averaged:
        notes = (*notes, f'skipped the averaged weights (EMA), entry {averaged!r}')
    return Source(state_dict_of(content), framework, 'model', notes, stated)


def _paddle_as_torch(content: Any) -> tuple[Any, tuple[str, ...]]:
    """Return a Paddle file's content with torch tensors for arrays, and notes on what was dropped.

    A file of weights maps names to arrays. A training checkpoint does so one level deeper, to pairs
    of Paddle's own name and the array.
    """
    if not isinstance(content, Mapping):
        return content, ()
    levels = {k: v for k, v in content.items() if k != _PADDLE_TABLE}
    for name, entry in levels.items():
        if isinstance(entry, Mapping):
            levels[name] = {k: _paddle_tensor(v) for k, v in entry.items() if k != _PADDLE_TABLE}
        else:
            levels[name] = _paddle_tensor(entry)
    tabled = any(_PADDLE_TABLE in m for m in (content, *content.values()) if isinstance(m, Mapping))
    note = f"dropped {_PADDLE_TABLE!r}: it lists Paddle's own names of the tensors"
    return levels, (note,) if tabled else ()


def _paddle_tensor(entry: Any) -> Any:
    """Return the tensor in an entry of a Paddle file, and any other entry unchanged."""
    array = entry[1] if isinstance(entry, tuple) and len(entry) == 2 else entry
    tensor = _of_numbers(array)
    return entry if tensor is None else tensor


def _of_numbers(array: Any) -> Tensor | None:
    """Return an array as a tensor; None for anything but an array of numbers."""
    if not isinstance(array, np.ndarray) or array.dtype.kind not in 'biufc':
        return None
    if array.dtype.newbyteorder('=') in _WITHOUT_TENSORS:
        return None
    return torch.from_numpy(array.astype(array.dtype.newbyteorder('='), copy=False))


def read_npz(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Read an archive of NumPy arrays, as JAX models are saved: names are paths with slashes.

    NumPy has no bfloat16: JAX's is stored as a raw type of two bytes.

    Raises:
        UserError: where the file is damaged, or holds an array that is not of numbers.
    """
    path = Path(path)
    try:
        with opened_archive(path, _NPZ_COMPRESSIONS) as (archive, entries, _):
            return {
                name.removesuffix(_NPY): _npz_tensor(name, archive, entry)
                for name, entry in entries.items()
            }
    except Exception as error:  # NumPy and zipfile raise anything on damaged files
        raise damaged(path, f'no archive of numbers: {error or type(error).__name__}') from error


def _npz_tensor(name: str, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Tensor:
    """Return the array in an entry, after checking its header against the entry's size."""
    shown = printable(name.removesuffix(_NPY))
    if not name.endswith(_NPY):
        raise UserError(f"'{shown}' is no array, expected numbers")
    with archive.open(entry) as file:
        shape, fortran, dtype = _npy_header(file)
        if dtype.kind not in 'biufc' and dtype != _NUMPY_BFLOAT16:
            raise UserError(f"'{shown}' is of the type {printable(dtype)}, expected numbers")
        flat = np.empty(_size(shown, shape, dtype.itemsize, entry.file_size - file.tell()), 'u1')
        read_into(file, flat)
    array = flat.view(dtype).reshape(shape, order='F' if fortran else 'C')
    if dtype == _NUMPY_BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    tensor = _of_numbers(array)
    if tensor is None:
        raise UserError(f"'{shown}' is of the type {dtype}, which torch does not have")
    return tensor


def _npy_header(file: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read the header of a ``.npy`` file: shape, Fortran order and type of its array."""
    version = np.lib.format.read_magic(file)  # type: ignore[no-untyped-call]
    reads = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in reads:
        raise UserError(f'an array of the unknown version {version}')
    return reads[version](file)  # type: ignore[no-untyped-call]


def _size(name: str, shape: tuple[int, ...], itemsize: int, stored: int) -> int:
    """Return the size of an array in bytes.

    Raises:
        UserError: where it is not the number of bytes that the file stores.
    """
    if len(shape) > _MAX_DIMENSIONS or math.prod(max(n, 1) for n in shape) >= 1 << 63:
        raise UserError(f"'{name}' has a shape of {len(shape)} dimensions that no tensor has")
    size = math.prod(shape) * itemsize
    if min(shape, default=0) < 0 or size != stored:
        raise UserError(f"'{name}' has {stored} bytes, its shape {shape} does not")
    return size


def _begins_like_mindspore(path: Path) -> bool:
    with path.open('rb') as file:
        return file.read(1) == bytes([_CHECKPOINT_VALUE << 3 | _LENGTH])


def read_mindspore(path: str | PathLike[str]) -> tuple[dict[str, Tensor], list[str]]:
    """Read a MindSpore ``.ckpt``, a protocol buffer of tagged tensors.

    Returns:
        name -> tensor, and the names of the texts that were skipped.

    Raises:
        UserError: where the file is damaged, or holds what is neither a tensor nor a text.
    """
    path = Path(path)
    try:
        return _tensors(_without_crc(memoryview(path.read_bytes())))
    except Exception as error:  # as above
        raise damaged(path, f'no MindSpore file: {error or type(error).__name__}') from error


def _without_crc(content: memoryview) -> memoryview:
    """Return the message without the checksum that MindSpore appends on request."""
    end = len(content) - len(_CRC_MARK) - _CRC_BYTES
    if end < 0 or content[end:-_CRC_BYTES] != _CRC_MARK:
        return content
    if zlib.crc32(content[:end]) != int.from_bytes(content[-_CRC_BYTES:], 'big'):
        raise UserError('its CRC-32 does not match its content')
    return content[:end]


def _tensors(content: memoryview) -> tuple[dict[str, Tensor], list[str]]:
    kinds: dict[str, tuple[str, tuple[int, ...]]] = {}
    parts: dict[str, bytearray] = {}
    last = ''
    for number, value in _fields(content):
        if number != _CHECKPOINT_VALUE or isinstance(value, int):
            raise UserError(f'unknown field {number}')
        tag, dtype, dims, data = _value(value)
        if len(kinds) > _MAX_TENSORS:
            raise UserError(f'it has more than {_MAX_TENSORS} tensors')
        # A large tensor is split by bytes into consecutive values, each with all dims.
        if tag in kinds and (tag != last or kinds[tag] != (dtype, dims)):
            raise UserError(f"the name '{printable(tag)}' occurs twice")
        kinds[tag], last = (dtype, dims), tag
        parts.setdefault(tag, bytearray()).extend(data)
    texts = [tag for tag, (dtype, _) in kinds.items() if dtype == _TEXT]
    return {
        tag: _tensor(tag, dtype, dims, parts[tag])
        for tag, (dtype, dims) in kinds.items()
        if dtype != _TEXT
    }, texts


def _value(message: memoryview) -> tuple[str, str, tuple[int, ...], memoryview]:
    """Return name, type, dims and content of a tagged tensor."""
    fields: dict[int, int | memoryview] = {}
    for number, value in _fields(message):
        if number in (_VALUE_TAG, _VALUE_TENSOR):  # others, however many, are dropped
            fields[number] = value
    tag, tensor = fields.get(_VALUE_TAG), fields.get(_VALUE_TENSOR)
    if not isinstance(tag, memoryview) or not isinstance(tensor, memoryview):
        raise UserError('an entry without a name or a tensor')
    dims: list[int] = []
    parts: dict[int, memoryview] = {}
    for number, value in _fields(tensor):
        if isinstance(value, memoryview):
            if number in (_TENSOR_TYPE, _TENSOR_CONTENT):
                parts[number] = value
        elif number == _TENSOR_DIMS:
            dims.append(value)
            if len(dims) > _MAX_DIMENSIONS:
                raise UserError(f'a tensor of more than {_MAX_DIMENSIONS} dimensions')
    dtype = str(parts[_TENSOR_TYPE], 'utf-8')
    return str(tag, 'utf-8'), dtype, tuple(dims), parts[_TENSOR_CONTENT]


def _tensor(tag: str, dtype: str, dims: tuple[int, ...], data: bytearray) -> Tensor:
    shown = printable(tag)
    if dtype not in _DTYPES:
        raise UserError(f"'{shown}' is of the unknown type '{printable(dtype)}'")
    size = _DTYPES[dtype].itemsize
    if dims == (0,) and len(data) == size:  # how MindSpore writes some scalars
        dims = ()
    _size(shown, dims, size, len(data))
    if not data:
        return torch.empty(dims, dtype=_DTYPES[dtype])
    return torch.frombuffer(data, dtype=_DTYPES[dtype]).reshape(dims)


_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types of protocol buffers


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yield field number and integer or bytes of a protocol-buffer message."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if kind == _VARINT:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == _LENGTH:
            size, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise UserError(f'byte {at} of a message has the wire type {kind}')
        if at + size > len(message):
            raise UserError(f'{at + size - len(message)} bytes are missing at its end')
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return the integer at ``at``, seven bits a byte, lowest first, and the index after it."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise UserError(f'byte {at} of a message ends no integer')
