"""Boxes and masks in COCO files."""

import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.config import Config

from mmwave.apis.config_names import config_files
from mmwave.apis.usage import UsageError
from mmwave.engine.data_checks import coco_form
from mmwave.engine.data_checks.boxes import box_fault
from mmwave.engine.data_checks.class_folders import quoted
from mmwave.engine.data_checks.class_names import differences, shifted
from mmwave.engine.data_checks.coco_file import read_json
from mmwave.engine.data_checks.coco_use import Use
from mmwave.engine.data_checks.samples import image_fault
from mmwave.errors import printable_path

from .base import Base
from .data import OwnData, Split
from .inputs import ClassNames, Inputs

_SPLITS = ('train', 'val')


class _File(NamedTuple):
    path: str
    folder: str
    document: Mapping[str, Any]
    report: coco_form.CocoReport


def read_coco(inputs: Inputs, base: Base, given: ClassNames | None) -> OwnData:
    """Read the COCO files of training and validation.

    The classes are in the order of the file, by which mmdet numbers them.

    Args:
        inputs: as checked.
        base: the detector that will learn from them, which may need masks.
        given: the classes to choose of those in the files; None for all.

    Raises:
        UsageError: where a file cannot be used, images are not there, or the files have other
            categories.
    """
    files = [
        _read(path, folder) for path, folder in zip(inputs.annotations, inputs.images, strict=True)
    ]
    for file in files:
        _check_images(file)
    classes = _classes(files, given)
    masks = _needs_masks(base.cfg)
    warnings = []
    for file, name in zip(files, _SPLITS, strict=True):
        report = coco_form.judge(file.document, frozenset(classes))
        use = Use(masks=masks, metrics=frozenset(('bbox', 'segm') if masks else ('bbox',)))
        problems = report.errors(use) if report else []
        if problems:
            hint = _without_masks(base) if any('segmentation' in text for text in problems) else ''
            raise UsageError(
                f'{printable_path(file.path)} cannot be used: {"; ".join(problems)}{hint}'
            )
        warnings += [f'{name}: {line}' for line in (report.warnings(use) if report else [])]
    chosen = dict(base.cfg.train_dataloader.dataset.get('filter_cfg') or {})
    train, val = (
        _split(file, classes, chosen if name == 'train' else {})
        for file, name in zip(files, _SPLITS, strict=True)
    )
    if not train.images:
        raise UsageError(
            f'{printable_path(files[0].path)}: none of its {len(files[0].report.sides)} images has '
            f'an object to learn from (filter_cfg={chosen})'
        )
    palette = None
    if given is not None and given.palette is not None:
        colour_of = dict(zip(given.names, given.palette, strict=True))
        palette = tuple(colour_of[name] for name in classes)
    return OwnData(
        unit='objects', classes=classes, train=train, val=val, palette=palette, warnings=warnings
    )


def _read(path: str, folder: str) -> _File:
    document = read_json(path)
    report = coco_form.judge(document)
    if report is None:
        raise UsageError(f'{printable_path(path)} has no COCO categories (id and name each)')
    # What ends every run ends here, before parts of the file are looked up.
    problems = report.errors(Use())
    if problems:
        raise UsageError(f'{printable_path(path)} cannot be used: {"; ".join(problems)}')
    if not report.sides:
        raise UsageError(f'{printable_path(path)} lists no images')
    if not report.has_annotations:
        raise UsageError(f'{printable_path(path)} has no annotations')
    return _File(path, folder, document, report)


def _check_images(file: _File) -> None:
    names = [image['file_name'] for image in file.document['images']]
    gone = [name for name in names if image_fault(osp.join(file.folder, name))]
    if gone:
        raise UsageError(
            f'{len(gone)} of {len(names)} images of {printable_path(file.path)} are missing or '
            f'empty in {printable_path(file.folder)}: {quoted(gone)}'
        )


def _classes(files: Sequence[_File], given: ClassNames | None) -> tuple[str, ...]:
    train, val = (tuple(map(str, file.report.names)) for file in files)
    for file, names in zip(files, (train, val), strict=True):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise UsageError(f'{printable_path(file.path)} has categories twice: {quoted(twice)}')
    if given is None:
        fault = differences(train, val) or shifted(train, val)
        if fault:
            raise UsageError(
                f'{printable_path(files[0].path)} and {printable_path(files[1].path)} have other '
                f'categories: {fault}'
            )
        return train
    for file, names in zip(files, (train, val), strict=True):
        strangers = [name for name in given.names if name not in names]
        if strangers:
            raise UsageError(
                f'--classes: {quoted(strangers)} not among the categories of '
                f'{printable_path(file.path)} ({quoted(names)})'
            )
    chosen, other = (tuple(n for n in names if n in given.names) for names in (train, val))
    fault = shifted(chosen, other)
    if fault:
        raise UsageError(f'the files have their categories in other orders: {fault}')
    return chosen


def _needs_masks(cfg: Config) -> bool:
    roi_head = cfg.model.get('roi_head') or {}
    return roi_head.get('mask_head') is not None or cfg.model.get('mask_head') is not None


def _without_masks(base: Base) -> str:
    family = base.name.partition('_')[0]
    fitting = [name for name in config_files() if name.startswith(f'{family}_retinanet')]
    return f'; for boxes alone take {fitting[0]}' if fitting else '; take a detector of boxes alone'


def _split(file: _File, classes: tuple[str, ...], chosen: Mapping[str, Any]) -> Split:
    label_of = {
        category['id']: classes.index(str(category['name']))
        for category in file.document['categories']
        if str(category['name']) in classes
    }
    sizes = {image['id']: (image['width'], image['height']) for image in file.document['images']}
    counts = [0] * len(classes)
    seen: list[set[Any]] = [set() for _ in classes]
    sides = []
    for annotation in file.document.get('annotations', ()):
        label = label_of.get(annotation['category_id'])
        size = sizes.get(annotation['image_id'])
        box = annotation['bbox']
        if label is None or size is None or box_fault(box, size) or annotation.get('iscrowd'):
            continue
        counts[label] += 1
        seen[label].add(annotation['image_id'])
        sides.append(((box[2] * box[3]) ** 0.5, size))
    annotated = set().union(*seen)
    least = chosen.get('min_size', 0)
    kept = [
        key
        for key, size in sizes.items()
        if min(size) >= least and (key in annotated or not chosen.get('filter_empty_gt'))
    ]
    return Split(
        images=len(kept),
        counts=counts,
        sizes=list(sizes.values()),
        settings=dict(ann_file=file.path, images=file.folder),
        in_images=[len(images) for images in seen],
        sides=sides,
    )


def coco_settings(split: Split, below: Any) -> dict[str, Any]:
    """Return a split's settings of the data set, paths as ``below`` returns them."""
    return dict(
        ann_file=below(split.settings['ann_file']),
        data_prefix=dict(img=below(split.settings['images'])),
    )
