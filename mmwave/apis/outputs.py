"""Files and folders that a run writes to at its end, tried before it begins."""

import os
import tempfile
from pathlib import Path

from mmwave.errors import printable, printable_path

from .usage import UsageError

_TRIED = bytes(1 << 16)  # a full disk still has room for an empty file


def check_output_file(option: str, path: str) -> None:
    """Check that a file can be written, beside it for what is there already.

    Args:
        option: named in errors.
        path: its folder is made where it is missing.

    Raises:
        UsageError: where ``path`` is a folder, or nothing can be written there.
    """
    target = Path(path).expanduser()
    if target.is_dir():
        raise UsageError(f'{option} {printable_path(path)} is a folder: name a file in it')
    if target.exists() and not target.is_file():
        raise UsageError(f'{option} {printable_path(path)} is no regular file')
    check_output_folder(option, str(target.parent), named=path)


def check_output_folder(option: str, path: str, *, named: str | None = None) -> None:
    """Check that files can be written into a folder, which is made where it is missing.

    Args:
        option: named in errors.
        path: of the folder.
        named: what the user gave, where that is a file in the folder.

    Raises:
        UsageError: where the folder cannot be made, or nothing can be written into it.
    """
    folder = Path(path).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(_TRIED)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        reason = printable(error.strerror or error)
        raise UsageError(
            f'{option} {printable_path(named or path)} cannot be written: {reason} '
            f'({printable_path(folder)}); name another place'
        ) from error
