"""The pictures and videos that a call names: files, folders, patterns and lists of paths."""

import glob
import os
import os.path as osp
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mmwave.apis.usage import UsageError
from mmwave.errors import printable_path

PICTURES = (*('.bmp', '.gif', '.jpeg', '.jpg', '.pgm', '.png', '.ppm', '.tif', '.tiff', '.webp'),)
VIDEOS = ('.avi', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg', '.mpg', '.webm', '.wmv')
_LIST = '.txt'


class Inputs(NamedTuple):
    """Paths as they were given, below folders in the order of their names, each once."""

    pictures: tuple[str, ...]
    videos: tuple[str, ...]


def find_inputs(given: Sequence[str], *, out: str | None = None) -> Inputs:
    """Return the pictures and videos that are meant by paths.

    A folder stands for all in it and below whose suffix is one of :data:`PICTURES` or
    :data:`VIDEOS`, hidden files and folders aside; a pattern (``*``, ``?``, ``[``, ``**``) for all
    such files and folders that match; a file that ends in ``.txt`` for the paths in it, one a line,
    which are those of the current folder or else of its own. Another file is a picture whatever its
    suffix.

    Args:
        given: the paths.
        out: a folder of results, in which nothing is looked for.

    Raises:
        UsageError: where one is empty, an address or ``-``, or stands for nothing.
    """
    if not given:
        raise UsageError('nothing to predict: name pictures, videos or folders')
    results = osp.realpath(out) if out is not None else None
    found: dict[str, str] = {}
    for path in given:
        for name in _meant_by(path, results):
            found.setdefault(osp.abspath(name), name)
    videos = tuple(name for name in found.values() if _is(name, VIDEOS))
    return Inputs(tuple(name for name in found.values() if not _is(name, VIDEOS)), videos)


def _meant_by(path: str, out: str | None) -> Iterator[str]:
    _check(path)
    if osp.isdir(path):
        yield from _filled(path, _in_folder(path, out), 'folder')
    elif _is(path, (_LIST,)) and osp.isfile(path):
        yield from _listed(path, out)
    elif osp.isfile(path):
        yield path
    elif osp.exists(path):
        raise UsageError(f'{printable_path(path)} is no regular file')
    elif glob.has_magic(path):
        yield from _filled(path, _matching(path, out), 'pattern')
    else:
        raise UsageError(f'no such file or folder: {printable_path(path)}')


def _check(path: str) -> None:
    if path == '-':
        raise UsageError('-: pictures are not read from standard input: name files or folders')
    if '://' in path:
        raise UsageError(
            f'{printable_path(path)} is an address: fetch it, and name the file on this machine'
        )
    if not path.strip():
        raise UsageError('a path is empty: is the shell variable that holds it unset?')
    if '\0' in path:
        raise UsageError(f'{printable_path(path)} is no path')


def _filled(path: str, found: Iterator[str], kind: str) -> Iterator[str]:
    count = 0
    for name in found:
        count += 1
        yield name
    if not count:
        raise UsageError(
            f'{printable_path(path)}: no picture and no video {"in" if kind == "folder" else "by"} '
            f'this {kind} ({" ".join(PICTURES + VIDEOS)})'
        )


def _in_folder(folder: str, out: str | None) -> Iterator[str]:
    def refused(error: OSError) -> None:
        raise UsageError(
            f'{printable_path(error.filename)} cannot be read: {error.strerror}'
        ) from error

    for parent, folders, names in os.walk(folder, onerror=refused):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith('.') and not _below(osp.join(parent, name), out)
        )
        for name in sorted(names):
            if not name.startswith('.') and _is(name, PICTURES + VIDEOS):
                yield osp.join(parent, name)


def _matching(pattern: str, out: str | None) -> Iterator[str]:
    for path in sorted(glob.glob(pattern, recursive=True)):
        if _below(path, out):
            continue
        # '**' matches every folder and all that is in it.
        if osp.isdir(path) and '**' not in pattern:
            yield from _in_folder(path, out)
        elif osp.isfile(path) and _is(path, PICTURES + VIDEOS):
            yield path


def _listed(path: str, out: str | None) -> Iterator[str]:
    try:
        with open(path, encoding='utf-8-sig') as file:
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, 'strerror', None) or 'it is no text in UTF-8'
        raise UsageError(f'{printable_path(path)} cannot be read: {reason}') from error
    count = 0
    for number, line in enumerate(lines, 1):
        name = line.strip()
        if not name:
            continue
        count += 1
        beside = osp.join(osp.dirname(path), name)
        try:
            _check(name)
            if _is(name, (_LIST,)):
                raise UsageError(f'a list in a list: {printable_path(name)}')
            yield from _meant_by(
                name if osp.exists(name) or not osp.exists(beside) else beside, out
            )
        except UsageError as error:
            raise UsageError(f'line {number} of {printable_path(path)}: {error}') from error
    if not count:
        raise UsageError(f'{printable_path(path)}: a list of no paths')


def _below(path: str, folder: str | None) -> bool:
    return folder is not None and osp.join(osp.realpath(path), '').startswith(osp.join(folder, ''))


def _is(path: str, suffixes: tuple[str, ...]) -> bool:
    return osp.splitext(path)[1].lower() in suffixes
