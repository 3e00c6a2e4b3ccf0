"""mmengine's local files, checkpoints among them, written whole or not at all."""

import shutil
from pathlib import Path

from mmengine.fileio import FileClient, HardDiskBackend, LocalBackend, register_backend

from mmwave.checkpoint import whole_file
from mmwave.errors import UserError, printable, printable_path


class NotWrittenError(UserError):
    """A file could not be written; what had its name before keeps it."""


class WholeFileBackend(LocalBackend):
    """mmengine's backend of local files, which appear when all of them has reached the disk."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file, and its folder where that is missing.

        Raises:
            NotWrittenError: with the bytes that are needed and free.
        """
        write_whole(Path(filepath), obj)


class _WholeFileClient(WholeFileBackend, HardDiskBackend):
    """The same under the name that ``file_client_args`` knows."""


def write_whole(path: Path, content: bytes) -> None:
    """Write ``path`` as :func:`whole_file` does, and its folder where that is missing.

    Raises:
        NotWrittenError: with the bytes that are needed and free.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(content)
    except (OSError, UserError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, 'strerror', None) or printable(error)
        raise NotWrittenError(
            f'{printable_path(path)} cannot be written: {reason} ({len(content):,} bytes are '
            f'needed, {_free(path.parent)})'
        ) from error


def register_whole_files() -> None:
    """Have mmengine write local files in this process through :class:`WholeFileBackend`.

    Covers the checkpoints of every hook, those published after a training too. Backends of remote
    files are left as they are.
    """
    register_backend('local', WholeFileBackend, prefixes='', force=True)
    if FileClient._backends['disk'] is not _WholeFileClient:
        FileClient.register_backend('disk', _WholeFileClient, force=True)


def _free(folder: Path) -> str:
    try:
        return f'{shutil.disk_usage(folder).free:,} are free'
    except OSError:
        return 'how many are free is unknown'
