"""Files of ``torch.save`` without running code: zip archives, and the format before torch 1.6."""

import io
import sys
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.serialization import MAGIC_NUMBER, PROTOCOL_VERSION

from mmwave.errors import UserError

from .archives import opened_archive, read_into
from .nodes import AsksForMoreError, Builder
from .pickles import TRUST_FLAG, explained
from .torch_tensors import TENSORS, Storage, Storages
from .unpickler import Stream, unpickled

ZIP_MAGIC = b'PK\x03\x04'
_PICKLE = '/data.pkl'
_BYTE_ORDERS = (b'little', b'big')


def load_restricted(path: Path) -> Any:
    """Return what the torch file ``path`` holds, as long as that is tensors and plain data.

    Raises:
        UntrustedCheckpointError: where it asks for anything else.
        UserError: where it is damaged, or holds a tensor of a kind that no weights are of.
    """
    with explained(path):
        with path.open('rb') as file:
            if file.read(len(ZIP_MAGIC)) != ZIP_MAGIC:
                file.seek(0)
                return _legacy(file)
        return _zipped(path)


def load_entry(path: Path, key: str) -> Any:
    """Return what an archive of torch holds as ``key``, plain data, without reading any tensor.

    Raises:
        KeyError: where it has no such entry.
        Exception: any other, where it is no such archive, is damaged or asks for more.
    """
    with opened_archive(path) as (archive, entries, size):
        stream = Stream(io.BytesIO(archive.read(pickle_in(entries))))
        return Builder(size).build(unpickled(stream, TENSORS, size, Storages())[key])


def check_sums(path: Path) -> None:
    """Raise ``ValueError`` unless the entries of an archive, if it is one, have their CRC-32.

    Archives can be written without, which then is zero for all.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        noted = any(entry.CRC for entry in archive.infolist())
        broken = archive.testzip() if noted else None
    if broken is not None:
        raise ValueError(f'its entry {broken} does not have its CRC-32')


def pickle_in(entries: Collection[str]) -> str:
    """Return the name of the pickle in an archive that has ``entries``."""
    pickles = [name for name in entries if name.endswith(_PICKLE)]
    if len(pickles) != 1:
        raise ValueError(f'it has {len(pickles)} entries named data.pkl, expected one')
    return pickles[0]


def _zipped(path: Path) -> Any:
    """Return the content of an archive: a pickle, and an entry for each storage it refers to."""
    with opened_archive(path) as (archive, entries, size):
        name = pickle_in(entries)
        folder = name.removesuffix(_PICKLE)
        if f'{folder}/constants.pkl' in entries:
            raise AsksForMoreError(['TorchScript, which is a program'])
        if not any(entry.CRC for entry in entries.values() if entry.file_size):
            raise UserError(
                'its entries have no CRC-32, as after torch.serialization.set_crc32_options(False),'
                f' so that damage would go unseen. Where you trust its author, give {TRUST_FLAG}'
            )
        order = b'little'
        if f'{folder}/byteorder' in entries:
            order = archive.read(f'{folder}/byteorder')
        if order not in _BYTE_ORDERS:
            raise ValueError(f'its byte order is {order!r}')
        storages = Storages()
        stream = Stream(io.BytesIO(archive.read(name)))
        content = unpickled(stream, TENSORS, size, storages)
        del stream
        for key, storage in storages.found.items():
            entry = entries.get(f'{folder}/data/{key}')
            if entry is None and storage.size:
                raise ValueError(f'its storage {key} is missing')
            if entry is not None and entry.file_size != storage.size:
                raise ValueError(
                    f'its storage {key} has {entry.file_size} bytes, declared are {storage.size}'
                )
        read: dict[str, torch.UntypedStorage] = {}

        def storage_of(key: str) -> torch.UntypedStorage:
            if key not in read:
                entry = entries.get(f'{folder}/data/{key}')
                swapped = order.decode() != sys.byteorder
                read[key] = _entry(archive, entry, storages.found[key], swapped)
            return read[key]

        return Builder(size, storage_of).build(content)


def _entry(
    archive: zipfile.ZipFile, entry: zipfile.ZipInfo | None, storage: Storage, swapped: bool
) -> torch.UntypedStorage:
    """Return the content of a storage; an entry that is read to its end is checked by CRC-32."""
    content, memory = _room_for(storage)
    if entry is not None:
        with archive.open(entry) as file:
            read_into(file, memory)
    if swapped:
        content.byteswap(storage.dtype)  # type: ignore[no-untyped-call]
    return content


def _legacy(file: io.BufferedReader) -> Any:
    """Return the content of five pickles, the fourth, with the storages that follow them."""
    stream = Stream(file)
    if unpickled(stream, {}, stream.size) != MAGIC_NUMBER:
        raise ValueError('it does not begin like a file of torch')
    version = unpickled(stream, {}, stream.size)
    if version != PROTOCOL_VERSION:
        raise ValueError('it is of an unknown version of the format')
    unpickled(stream, {}, stream.size)  # the machine that wrote it, which changes nothing
    storages = Storages()
    content = unpickled(stream, TENSORS, stream.size, storages)
    keys = unpickled(stream, {}, stream.size)
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise ValueError('its list of storages is none')
    if len(keys) != len(set(keys)) or set(keys) != storages.found.keys():
        raise ValueError('its list of storages is not of those that its tensors need')
    return Builder(stream.size, _storages_behind(stream, keys, storages.found).__getitem__).build(
        content
    )


def _storages_behind(
    stream: Stream, keys: list[str], found: Mapping[str, Storage]
) -> dict[str, torch.UntypedStorage]:
    """Return the storages at the end of a file, each preceded by the number of its elements."""
    count_size = 8
    declared = sum(count_size + found[key].size for key in keys)
    if declared > stream.size - stream.tell():
        raise EOFError(f'its storages declare {declared} bytes, it ends before')
    read = {}
    for key in keys:
        if int.from_bytes(stream.read(count_size), 'little') != found[key].numel:
            raise ValueError(f'its storage {key} is of another size than declared')
        read[key], memory = _room_for(found[key])
        stream.readinto(memory)
        if sys.byteorder != 'little':
            read[key].byteswap(found[key].dtype)  # type: ignore[no-untyped-call]
    return read


def _room_for(storage: Storage) -> tuple[torch.UntypedStorage, memoryview]:
    """Return memory on the host, and a view to write into it."""
    flat = torch.empty(storage.size, dtype=torch.uint8, device='cpu')
    memory: Any = flat.numpy()
    return flat.untyped_storage(), memoryview(memory)
