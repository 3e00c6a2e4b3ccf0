"""What training and validation data must agree on: a label has to mean the same in both."""

from typing import Any

from .class_folders import stray_note
from .class_names import differences, shifted
from .datasets import folder, metainfo


def labels_of(dataset: Any) -> tuple[str, ...]:
    """Return what the labels of a built data set mean, in their order.

    The names of the folders that they were numbered by, whatever names the classes are given; else
    the names of the classes; empty where there are none.
    """
    folders = getattr(dataset, 'folder_to_idx', None)
    names = folders or metainfo(dataset).get('classes') or ()
    return () if isinstance(names, str) else tuple(names)


def split_fault(train: Any, val: Any) -> str | None:
    """Return what makes the labels of two built data sets mean different things."""
    if not comparable(train, val):
        return None
    both = labels_of(train), labels_of(val)
    fault = shifted(*both)
    if fault is None:
        return None
    parts = [fault, differences(*both)]
    if hasattr(val, 'folder_to_idx'):
        parts.append('folders are numbered by their sorted names: make those that are missing')
        for dataset, names in zip((train, val), both, strict=True):
            note = stray_note(names)
            parts.append(f'in {folder(dataset)!r}: {note}' if note else '')
    return '; '.join(part for part in parts if part)


def split_notes(train: Any, val: Any) -> list[str]:
    """Return warnings about two built data sets whose common labels mean the same."""
    notes = []
    if comparable(train, val):
        other = differences(labels_of(train), labels_of(val))
        if other:
            notes.append(f'other classes than the training data has; {other}')
    reduced = [metainfo(dataset).get('reduce_zero_label') for dataset in (train, val)]
    if None not in reduced and reduced[0] != reduced[1]:
        notes.append(
            f'reduce_zero_label is {reduced[1]}, for the training data it is {reduced[0]}: a label '
            'in their files means another class'
        )
    return notes


def has_fewer_folders(train: Any, val: Any) -> bool:
    """Return whether the last classes of the training data have no folder in the validation data.

    The labels are right all the same.
    """
    folders = tuple(getattr(val, 'folder_to_idx', None) or ())
    names = labels_of(train)
    return 0 < len(folders) < len(names) and names[: len(folders)] == folders


def comparable(train: Any, val: Any) -> bool:
    """Return whether labels of both are named by the same kind of thing, folders or classes."""
    by_folder = [bool(getattr(dataset, 'folder_to_idx', None)) for dataset in (train, val)]
    # Where one is a list of files, its numbers are known to mean the classes, if there are names.
    return by_folder[0] == by_folder[1] and bool(labels_of(train)) and bool(labels_of(val))
