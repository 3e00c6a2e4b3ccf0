"""Zip archives whose declared sizes are checked against the file's before anything is read."""

import io
import os
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

_MAX_DIRECTORY = 8 << 20  # bytes: more than 50,000 entries
_SPARE_CONTENT = 1 << 20
_ENCRYPTED = 1
_CHUNK = 1 << 20


@contextmanager
def opened_archive(
    path: Path, compressions: Collection[int] = (zipfile.ZIP_STORED,)
) -> Iterator[tuple[zipfile.ZipFile, dict[str, zipfile.ZipInfo], int]]:
    """Open a zip archive.

    Args:
        path: a local file.
        compressions: how its entries may be compressed.

    Yields:
        The archive, its entries by their names, and the size of the file in bytes.

    Raises:
        ValueError: where its entries are encrypted, compressed otherwise, outside of the file,
            more than twice as large as the file together, or two of them have one name.
        zipfile.BadZipFile: where it is damaged.
    """
    with _Reader(io.FileIO(path)) as file:
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            file.most = size
            entries = {entry.filename: entry for entry in archive.infolist()}
            if len(entries) < len(archive.infolist()):
                raise ValueError('several of its entries have the same name')
            for name, entry in entries.items():
                _check(name, entry, size, compressions)
            content = sum(entry.file_size for entry in entries.values())
            if content > 2 * size + _SPARE_CONTENT:
                raise ValueError(f'its entries declare {content} bytes, more than its size allows')
            yield archive, entries, size


def read_into(file: IO[bytes], memory: Any) -> None:
    """Fill ``memory``, bytes, with what an entry holds, without a second copy of all of it.

    Raises:
        EOFError: where the entry is shorter.
    """
    for start in range(0, len(memory), _CHUNK):
        part = memory[start : start + _CHUNK]
        if cast(zipfile.ZipExtFile, file).readinto(part) < len(part):
            raise EOFError('an entry of it ends too early')


class _Reader(io.BufferedReader):
    """A file of which no more than ``most`` bytes are read at a time."""

    most = _MAX_DIRECTORY

    def read(self, count: int | None = -1, /) -> bytes:
        # The archive's directory is read in one piece.
        if count is None or count < 0:
            count = os.fstat(self.fileno()).st_size - self.tell()
        if count > self.most:
            raise zipfile.BadZipFile(f'its directory takes more than {self.most} bytes')
        return super().read(count)


def _check(name: str, entry: zipfile.ZipInfo, size: int, compressions: Collection[int]) -> None:
    if entry.compress_type not in compressions:
        raise ValueError(f'its entry {name} is compressed, which those of checkpoints are not')
    if entry.flag_bits & _ENCRYPTED:
        raise ValueError(f'its entry {name} is encrypted')
    stored = entry.compress_type == zipfile.ZIP_STORED
    if stored and entry.file_size != entry.compress_size:
        raise ValueError(f'its entry {name} is stored with two sizes')
    if not 0 <= entry.header_offset <= size - entry.compress_size:
        raise ValueError(f'its entry {name} reaches beyond its end')
