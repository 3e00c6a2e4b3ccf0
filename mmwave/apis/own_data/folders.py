"""A folder of images for each class."""

import os
from collections import Counter
from typing import Any

from mmwave.apis.places import default_of
from mmwave.apis.usage import UsageError
from mmwave.engine.data_checks.class_folders import (
    class_folders,
    folders_fault,
    stray_note,
    strays,
)
from mmwave.engine.data_checks.class_names import differences
from mmwave.engine.data_checks.samples import count_labels
from mmwave.errors import printable_path

from .data import OwnData, Split
from .image_sizes import sizes_of
from .inputs import ClassNames, Inputs

# mmpretrain reads none of these unless it is told to.
_OTHER = ('.webp', '.jfif', '.tiff', '.gif', '.avif', '.heic')


def read_folders(inputs: Inputs, given: ClassNames | None) -> OwnData:
    """Read the folders of training and validation as mmpretrain's ``CustomDataset`` does.

    Args:
        inputs: as checked.
        given: names for the folders in their sorted order; None for the names of the folders.

    Raises:
        UsageError: where the folders of both differ, or hold no images.
    """
    train, val = inputs.annotations
    folders, others = class_folders(train), class_folders(val)
    for root, found in ((train, folders), (val, others)):
        if strays(found):
            raise UsageError(f'in {printable_path(root)}: {stray_note(found)}')
        if not found:
            raise UsageError(f'{printable_path(root)} has no folders, expected one for each class')
        if 'train' in found and {'val', 'test'} & set(found):
            inner = f'{printable_path(root)}/train'
            raise UsageError(f'the folders of {printable_path(root)} are no classes: give {inner}')
    if folders != others:
        raise UsageError(
            f'{printable_path(train)} and {printable_path(val)} have other folders, which are the '
            f'classes: {differences(folders, others)}'
        )
    names = given.names if given is not None else folders
    fault = folders_fault(train, folders, names)
    if fault is not None:
        raise UsageError(f'--classes: {fault}')
    warnings: list[str] = []
    splits = [
        _split(root, name, len(names), warnings) for root, name in ((train, 'train'), (val, 'val'))
    ]
    return OwnData(unit='images', classes=names, train=splits[0], val=splits[1], warnings=warnings)


def _split(root: str, name: str, num_classes: int, warnings: list[str]) -> Split:
    from mmpretrain.datasets import CustomDataset

    suffixes = _suffixes(root)
    read = default_of(CustomDataset, 'extensions')
    other = {suffix: n for suffix, n in suffixes.items() if suffix in _OTHER}
    settings: dict[str, Any] = dict(folder=root)
    if not any(suffixes[suffix] for suffix in read):
        if not other:
            raise UsageError(
                f'{printable_path(root)} has no images in its folders ({", ".join(read)})'
            )
        settings['extensions'] = tuple(sorted(other))
    elif other:
        texts = ', '.join(f'{n} {suffix}' for suffix, n in other.items())
        warnings.append(f'{name}: {texts} files are not read, only {", ".join(read)}')
    extensions = settings.get('extensions', read)
    dataset = CustomDataset(data_root=root, extensions=extensions)
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    return Split(
        images=len(infos),
        counts=count_labels([info['gt_label'] for info in infos], num_classes).tolist(),
        sizes=sizes_of([info['img_path'] for info in infos], name, warnings),
        settings=settings,
    )


def _suffixes(root: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for folder in class_folders(root):
        for _, _, names in os.walk(os.path.join(root, folder), followlinks=True):
            found.update(os.path.splitext(name)[1].lower() for name in names)
    return found


def folder_settings(split: Split, below: Any) -> dict[str, Any]:
    """Return a split's settings of the data set, paths as ``below`` returns them."""
    settings = {k: v for k, v in split.settings.items() if k != 'folder'}
    return dict(data_prefix=below(split.settings['folder']), **settings)
