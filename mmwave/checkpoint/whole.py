"""Whether a checkpoint is whole, and how far it got, without loading it."""

import functools
import os
from pathlib import Path
from typing import NamedTuple

from mmwave.errors import UserError

from .archives import opened_archive
from .missing import MissingFileError
from .pickles import UntrustedCheckpointError
from .reading import container_of, read_checkpoint
from .torch_files import ZIP_MAGIC, check_sums, load_entry, pickle_in


class Progress(NamedTuple):
    """How far a training was when it wrote a checkpoint, by the file's own notes.

    Attributes:
        iterations: done.
        time: when it was written, as mmengine notes it (``20250131_235959``), empty where unknown.
    """

    iterations: int
    time: str


def damage_of(path: str | os.PathLike[str], *, contents: bool = True) -> str:
    """Return in a few words what keeps a file from being a whole checkpoint, empty where nothing.

    A zip archive of torch is whole where its directory is and every entry has its CRC-32; a file of
    another format, where it can be read. A file that asks to run code is as whole as it can be
    told. One that was looked at is not read again for as long as it stays as it is.

    Args:
        path: a local file.
        contents: read all of it; else the directory of an archive alone, which a file that was cut
            lacks.
    """
    path = Path(path).expanduser()
    try:
        state = path.stat()
    except (OSError, ValueError) as error:
        return getattr(error, 'strerror', None) or str(error)
    return _damage_of(path, contents, state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _damage_of(path: Path, contents: bool, size: int, changed: int) -> str:
    try:
        with path.open('rb') as file:
            zipped = file.read(len(ZIP_MAGIC)) == ZIP_MAGIC
        if zipped:
            _check_archive(path, contents)
        elif not size:
            return 'it is empty'
        elif container_of(path) == 'other':
            return f'it is no checkpoint, or its beginning is damaged ({size} bytes)'
        elif contents:
            read_checkpoint(path)
    except (UntrustedCheckpointError, MissingFileError):
        return ''
    except UserError as error:
        return str(error)
    except Exception as error:  # a damaged file can fail in any way
        reason = str(error) or type(error).__name__
        return f'it is damaged ({size} bytes): {reason}'
    return ''


def _check_archive(path: Path, contents: bool) -> None:
    with opened_archive(path) as (_, entries, _):
        pickle_in(entries)
    if contents:
        check_sums(path)


def progress_of(path: str | os.PathLike[str]) -> Progress | None:
    """Return how far the training was that wrote a torch checkpoint, None where that is unknown."""
    try:
        meta = load_entry(Path(path), 'meta')
        time = meta.get('time')
        return Progress(int(meta['iter']), time if isinstance(time, str) else '')
    except Exception:  # of another format or damaged, which is said by others
        return None
