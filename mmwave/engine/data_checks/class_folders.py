"""Data sets for classification whose classes are folders.

mmpretrain makes a class of every folder, hidden ones and leftovers of other programs included, and
numbers them by their sorted names, so that one folder too many or too few shifts the labels of all
that follow.
"""

import os
from collections.abc import Sequence

from mmwave.errors import printable

# Folders that other programs leave behind, beside the hidden ones.
_LEFTOVERS = ('__MACOSX', '__pycache__', '@eaDir', '$RECYCLE.BIN', 'lost+found')
_SHOWN = 5


def class_folders(root: str) -> tuple[str, ...]:
    """Return the folders that mmpretrain makes classes of, in the order of their labels."""
    # A hidden file is followed no further, and a link to a folder is a folder.
    return tuple(sorted(entry.name for entry in os.scandir(root) if os.path.isdir(entry.path)))


def strays(folders: Sequence[str]) -> tuple[str, ...]:
    """Return those of the folders that hardly are classes: hidden ones and leftovers."""
    return tuple(name for name in folders if name.startswith('.') or name in _LEFTOVERS)


def stray_note(folders: Sequence[str]) -> str:
    """Say which folders hardly are classes, '' for none."""
    found = strays(folders)
    if not found:
        return ''
    if len(found) == 1:
        return f'folder {quoted(found)} is taken for a class: remove it'
    return f'folders {quoted(found)} are taken for classes: remove them'


def folders_fault(root: str, folders: Sequence[str], classes: Sequence[str]) -> str | None:
    """Compare the folders of a data set with the names that its classes are given.

    Args:
        root: the folder that holds them.
        folders: as :func:`class_folders` returns them.
        classes: the names, which may be others than the folders', as ImageNet's are.

    Returns:
        What is wrong, None for nothing.
    """
    note = stray_note(folders)
    if len(folders) != len(classes):
        named = f'{len(folders)} folder(s) in {root!r} for {len(classes)} classes'
        more = [name for name in folders if name not in classes]
        less = [name for name in classes if name not in folders]
        # Names of another kind than the folders' (tench, n01440764) say nothing by comparison.
        if len(more) < len(folders):
            named += f'; folders without a class: {quoted(more)}' if more else ''
            named += f'; classes without a folder: {quoted(less)}' if less else ''
        fix = note or "type='CustomDataset' without names of classes takes those of the folders"
        return f'{named}; {fix}'
    label_of = {name: label for label, name in enumerate(folders)}
    for label, name in enumerate(classes):
        if label_of.get(name, label) != label:
            return (
                f'folder {printable(name)!r} in {root!r} has label {label_of[name]} (folders are '
                f'numbered by their sorted names), which the classes call '
                f'{printable(classes[label_of[name]])!r}' + (f'; {note}' if note else '')
            )
    return None


def quoted(names: Sequence[str]) -> str:
    """Return the first few names for a message."""
    more = f', … and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return ', '.join(repr(printable(name, 60)) for name in names[:_SHOWN]) + more
