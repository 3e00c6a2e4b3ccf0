"""Files that appear under their names when they are complete, weight files among them."""

import hashlib
import io
import json
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import save
from torch import Tensor

from mmwave.errors import UserError, printable, printable_path

from .missing import MissingFileError

SUFFIXES = ('.pth', '.safetensors')

_LENGTH = 8  # bytes of a safetensors header's length
_TOKEN_DIGITS = 16
_LONGEST_NAME = 200  # bytes; names may have 255, and a part file's is longer than its target's


def check_target(path: Path) -> None:
    """Raise unless a weight file can be written to ``path``, as far as can be seen beforehand.

    Raises:
        MissingFileError: where its folder is missing.
        UserError: for another suffix than those of :data:`SUFFIXES`, or a ``path`` that is there
            and is no regular file.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f'{printable_path(path)} must end in {" or ".join(SUFFIXES)}')
    with _explained(path):
        _settled(path)


def source_and_target(
    src: str | os.PathLike[str], dst: str | os.PathLike[str]
) -> tuple[Path, Path]:
    """Return both as local paths, checked to be two and ``dst`` one that can be written.

    Raises:
        MissingFileError: where the folder of ``dst`` is missing.
        UserError: where one is no path, or :func:`check_target` refuses ``dst``.
    """
    try:
        source, target = Path(src).expanduser(), Path(dst).expanduser()
        check_target(target)
        same = source.resolve() == target.resolve()
    except UserError:
        raise
    except (OSError, RuntimeError, ValueError) as error:
        # A loop of links, a NUL in a name, a name that is too long, no such home.
        raise UserError(
            f'{printable_path(Path(src))} cannot be read, or {printable_path(Path(dst))} written: '
            f'{printable(error)}'
        ) from error
    if same:
        raise UserError(f'{printable_path(target)} is the source itself, which would be lost')
    return source, target


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write ``state_dict`` and ``meta``, as :func:`whole_file` writes.

    Args:
        path: ``.pth`` or ``.safetensors``, replaced where it exists. In a safetensors file the
            metadata are texts: what is no text is written as JSON.
        tensors: name -> tensor.
        meta: what is known of them.

    Raises:
        MissingFileError: where the folder is missing.
        UserError: for another suffix, a ``meta`` that JSON has no form for, or a file that cannot
            be written.
    """
    check_target(path)
    state = _copied(tensors)
    with whole_file(path) as file:
        if path.suffix == '.safetensors':
            file.write(_safetensors(path, state, meta))
        else:
            torch.save({'meta': dict(meta), 'state_dict': state}, file)


def checkpoint_bytes(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    """Return what :func:`write_checkpoint` would write: the same bytes for the same content.

    Args:
        path: its suffix decides on the format; nothing is written.
        tensors: name -> tensor.
        meta: what is known of them.

    Raises:
        UserError: for another suffix, or a ``meta`` that JSON has no form for.
    """
    check_target(path)
    state = _copied(tensors)
    if path.suffix == '.safetensors':
        return _safetensors(path, state, meta)
    buffer = io.BytesIO()
    torch.save({'meta': dict(meta), 'state_dict': state}, buffer)
    return buffer.getvalue()


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    # Or torch would save all of a storage that a tensor is only a part of.
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def _safetensors(path: Path, state: dict[str, Tensor], meta: Mapping[str, Any]) -> bytes:
    content = save(state, metadata={k: _text(path, k, v) for k, v in meta.items()})
    # The library writes metadata in an order of chance.
    end = _LENGTH + int.from_bytes(content[:_LENGTH], 'little')
    header = json.loads(content[_LENGTH:end])
    if '__metadata__' in header:
        header['__metadata__'] = dict(sorted(header['__metadata__'].items()))
    text = json.dumps(header, separators=(',', ':'), ensure_ascii=False).encode()
    text += b' ' * (-len(text) % _LENGTH)  # tensors begin at a multiple of it
    return b''.join([len(text).to_bytes(_LENGTH, 'little'), text, memoryview(content)[end:]])


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file that gets the name ``path`` when the block ends without an error.

    Until then, and after any failure, what had the name before keeps it. The new file is written
    under a name of its own in the same folder and has reached the disk before it is renamed. It
    gets the permissions of the file that it replaces. Where ``path`` is a symbolic link, the link
    stays and the file that it leads to is replaced. What killed processes left behind of writing
    the same ``path`` is removed first.

    Raises:
        MissingFileError: where the folder is missing.
        UserError: where the file cannot be written, or ``path`` is a folder, a pipe or a device.
    """
    with _explained(path):
        target, mode = _settled(path)
        _remove_leftovers(target)
        part, file = _new_part(target, mode)
        try:
            with file:
                yield file
                file.flush()
                os.fsync(file.fileno())
                # Renamed while it is locked: no process treats it as a leftover.
                part.replace(target)
            _sync_folder(target.parent)
        finally:
            with suppress(OSError):  # the first error is the one to report
                part.unlink(missing_ok=True)


def _settled(path: Path) -> tuple[Path, int | None]:
    """Return the regular file, there or not, that ``path`` leads to, and its permissions if any.

    Raises:
        MissingFileError: where its folder is missing.
        UserError: where something else is there.
    """
    target = Path(os.path.realpath(path))
    if not stat.S_ISDIR(_mode_of(target.parent) or 0):
        raise MissingFileError(
            f'no folder {printable_path(target.parent)} to write {printable(path.name)} in'
        )
    mode = _mode_of(target)
    if mode is not None and not stat.S_ISREG(mode):
        kind = 'a folder' if stat.S_ISDIR(mode) else 'no regular file'
        raise UserError(f'{printable_path(path)} is {kind}: it cannot be replaced')
    return target, mode and stat.S_IMODE(mode)


def _mode_of(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


def _new_part(target: Path, mode: int | None) -> tuple[Path, IO[bytes]]:
    """Return a new file beside ``target``, open and locked."""
    # Exclusive: no file and no link that is there already is written through.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, 'O_CLOEXEC', 0)
    while True:
        part = target.with_name(f'{_lead(target)}{secrets.token_hex(_TOKEN_DIGITS // 2)}.part')
        # Where a file is replaced its permissions are set below, wider than these or not.
        descriptor = os.open(part, flags, 0o666 if mode is None else 0o600)
        file = os.fdopen(descriptor, 'wb')
        try:
            _lock(descriptor)
            if mode is not None:
                os.fchmod(descriptor, mode)  # by its name it may be gone already
            # Another writer may have treated it as a leftover before it was locked.
            if os.fstat(descriptor).st_nlink:
                return part, file
        except BaseException:
            file.close()
            part.unlink(missing_ok=True)
            raise
        file.close()


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left in ``folder`` of files that :func:`whole_file` writes."""
    _remove_parts(folder, r'\..+\.')


def _remove_leftovers(target: Path) -> None:
    """Remove the part files of ``target`` that no process is writing."""
    _remove_parts(target.parent, re.escape(_lead(target)))


def _remove_parts(folder: Path, lead: str) -> None:
    wanted = re.compile(rf'{lead}[0-9a-f]{{{_TOKEN_DIGITS}}}\.part')
    with suppress(OSError), os.scandir(folder) as entries:  # a folder that cannot be listed
        found = [e.path for e in entries if wanted.fullmatch(e.name) and _is_file(e)]
        for path in found:
            with suppress(OSError):  # gone, or not ours
                descriptor = os.open(path, os.O_RDWR | getattr(os, 'O_NOFOLLOW', 0))
                try:
                    if _lock(descriptor, wait=False):
                        os.unlink(path)
                finally:
                    os.close(descriptor)


def _is_file(entry: 'os.DirEntry[str]') -> bool:
    return entry.is_file(follow_symlinks=False)


def _lead(target: Path) -> str:
    """Return what the names of the part files of ``target`` begin with."""
    name = target.name
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()
    return f'.{name}.'


def _lock(descriptor: int, *, wait: bool = True) -> bool:
    """Lock an open file until it is closed; return whether that was possible.

    File systems without locks let nobody lock: there nothing is treated as a leftover.
    """
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):
        return False
    return True


def _sync_folder(folder: Path) -> None:
    """Have the new name reach the disk, where the file system supports that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn errors of the system on writing ``path`` into one line that names it."""
    try:
        yield
    except MissingFileError:
        raise
    except OSError as error:
        raise _refused(path, error) from error
    except RuntimeError as error:
        # torch's writer of zip archives fails once more over what was not written.
        cause = error.__context__
        if not isinstance(cause, OSError):
            raise
        raise _refused(path, cause) from error


def _refused(path: Path, error: OSError) -> UserError:
    return UserError(f'{printable_path(path)} cannot be written: {error.strerror or error}')


def _text(path: Path, key: str, value: Any) -> str:
    """Return a note as safetensors stores it."""
    try:
        # Arrays and scalars of NumPy, which data sets' metadata may hold.
        text = value if isinstance(value, str) else json.dumps(value, default=lambda v: v.tolist())
        (key + text).encode()  # not every text of Python has a form in UTF-8
        return text
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise UserError(
            f'{printable_path(path)} cannot hold the note {printable(key)!r} as text: '
            f'{printable(str(error))}; a .pth file may'
        ) from error
