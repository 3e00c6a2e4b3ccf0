"""What a config says about the classes of one data set, held against its files."""

import os
from collections.abc import Mapping
from typing import Any

from .class_folders import class_folders, folders_fault
from .class_names import palette_fault, stated_classes, subset_fault
from .label_lists import list_fault
from .pipeline import inherits


def class_fault(
    settings: Mapping[str, Any],
    cls: type | None,
    *,
    folder: str | None = None,
    ann_file: str | None = None,
) -> str | None:
    """Return what is wrong with the classes of a data set, None for nothing.

    Args:
        settings: of the data set in a config.
        cls: its class, None for unknown.
        folder: on this machine that it reads images from, None for none.
        ann_file: its annotation file on this machine, None for none.

    Raises:
        NamesFault: where the names of the classes are no names.
    """
    names = stated_classes(settings, cls)
    if names is not None:
        fault = subset_fault(names, cls) or palette_fault(settings, names, cls)
        if fault is not None:
            return fault
    if not _is_custom_dataset(cls) or not _has_labels(settings, cls):
        return None
    if ann_file is not None:
        return list_fault(ann_file) if os.path.isfile(ann_file) else None
    if names is None or folder is None or not os.path.isdir(folder):
        return None
    return folders_fault(folder, class_folders(folder), names)


def _is_custom_dataset(cls: type | None) -> bool:
    """Return whether a class lists its samples as mmpretrain's ``CustomDataset`` does."""
    if not inherits(cls, 'load_data_list', '_find_samples'):
        return False
    load = getattr(cls, 'load_data_list', None)
    return getattr(load, '__qualname__', '') == 'CustomDataset.load_data_list'


def _has_labels(settings: Mapping[str, Any], cls: type | None) -> bool:
    # ImageNet's test split is a flat folder without labels.
    is_imagenet = any(base.__name__ == 'ImageNet' for base in getattr(cls, '__mro__', ()))
    unlabelled = is_imagenet and settings.get('split') == 'test'
    return settings.get('with_label', True) and not unlabelled
