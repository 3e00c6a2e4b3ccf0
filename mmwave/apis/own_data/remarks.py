"""What looks wrong in data and plan, in a line each: the config is written all the same."""

import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from mmengine.config import Config

from mmwave.engine.data_checks.class_folders import quoted
from mmwave.engine.data_checks.datasets import bare_type

from .data import OwnData, Split
from .rates import Plan

# A class with fewer samples is hardly learnt, one that is this much rarer than the median neither.
_FEW = 10
_RARER = 20
# Pixels of an object's side, as a detector sees it, and the share of objects that is worth a word.
_SMALL_SIDE, _SMALL_SHARE = 16, 0.25
_ENLARGED = 2.0
_FEW_STEPS = 500
_MANY_EPOCHS = 1000
_RESIZERS = ('Resize', 'ResizeEdge')


def remarks(data: OwnData, plan: Plan, cfg: Config, min_size: int) -> list[str]:
    """Return a line for each thing that looks wrong.

    Args:
        data: as read.
        plan: of the training.
        cfg: the base.
        min_size: pixels that each side of an image must have for the backbone.
    """
    return [
        *_of_classes(data),
        *_of_sizes(data, cfg, min_size),
        *_of_plan(data, plan),
    ]


def _of_classes(data: OwnData) -> Iterator[str]:
    counts, names = data.train.counts, data.classes
    empty = [name for name, count in zip(names, counts, strict=True) if count == 0]
    if empty:
        of = f'{len(empty)} of {len(names)} classes'
        yield f'{of} have no {data.unit} in the training data: {quoted(empty)}'
    absent = [
        n for n, count in zip(names, data.val.counts, strict=True) if count == 0 and n not in empty
    ]
    if absent:
        of = f'{len(absent)} of {len(names)} classes'
        yield f'{of} have {data.unit} in the training data alone: {quoted(absent)}'
    present = sorted(count for count in counts if count)
    if not present:
        return
    usual = median(present)
    rare = [
        f'{name} ({count})' if data.unit != 'pixels' else name
        for name, count in zip(names, counts, strict=True)
        if 0 < count * _RARER < usual or (data.unit != 'pixels' and 0 < count < _FEW)
    ]
    if rare:
        yield f'rare classes, which will hardly be learnt: {quoted(rare)}'
    if len(names) == 1 and data.unit != 'objects':
        yield f'one class alone ({names[0]!r}): there is nothing to tell it from'
    same = _same_files(data)
    if same:
        yield f'training and validation have the same {same}: metrics tell nothing of new images'


def _same_files(data: OwnData) -> str:
    train, val = data.train.settings, data.val.settings
    for key, what in (('ann_file', 'annotation file'), ('folder', 'folder'), ('masks', 'masks')):
        if key in train and osp.realpath(train[key]) == osp.realpath(val[key]):
            return what
    return ''


def _of_sizes(data: OwnData, cfg: Config, min_size: int) -> Iterator[str]:
    for split, name in ((data.train, 'train'), (data.val, 'val')):
        small = [size for size in split.sizes if min(size) < min_size]
        if small:
            width, height = min(small, key=min)
            yield (
                f"{name}: {len(small)} images are smaller than the backbone's least size of "
                f'{min_size} pixels, the smallest is {width} x {height}'
            )
    factor = enlargement(cfg)
    if factor is None:
        return
    usual = median(factor(size) for size in data.train.sizes)
    if usual > _ENLARGED:
        yield (
            f'the pipeline enlarges images {usual:.1f} times: a smaller scale of its Resize trains '
            'faster, at hardly another result'
        )
    sides = [side * factor(size) for side, size in data.train.sides]
    tiny = sum(side < _SMALL_SIDE for side in sides)
    if sides and tiny > _SMALL_SHARE * len(sides):
        yield (
            f'{tiny / len(sides):.0%} of the objects are smaller than {_SMALL_SIDE} pixels when '
            'the detector sees them: set a larger scale in the pipeline, or cut images into tiles'
        )


def _of_plan(data: OwnData, plan: Plan) -> Iterator[str]:
    if plan.total < _FEW_STEPS:
        yield (
            f'{plan.total} steps in all are few: give --epochs a larger number'
            + (', or --batch a smaller one' if plan.batch > 1 else '')
        )
    if plan.epochs > _MANY_EPOCHS:
        yield (
            f'{plan.total} steps are {plan.epochs:.0f} epochs of {data.train.images} images: '
            '--epochs N sets a shorter training'
        )
    if plan.batch > data.train.images:
        yield f'a batch of {plan.batch} is more than the {data.train.images} images of an epoch'


def enlargement(cfg: Config) -> Any:
    """Return a function from an image's size to the factor that the test pipeline resizes it by.

    None where the pipeline has no step that says so.
    """
    steps: Sequence[Mapping[str, Any]] = cfg.val_dataloader.dataset.get('pipeline') or ()
    step = next((s for s in steps if bare_type(s) in _RESIZERS and 'scale' in s), None)
    if step is None:
        return None
    scale = step['scale']
    if bare_type(step) == 'ResizeEdge':
        edge = {'short': min, 'long': max}.get(step.get('edge', 'short'))
        return None if edge is None else lambda size: scale / edge(size)
    if not isinstance(scale, list | tuple) or not step.get('keep_ratio'):
        return None
    return lambda size: min(max(scale) / max(size), min(scale) / min(size))


def size_line(split: Split) -> str:
    """Return the range and the median of the sizes of images, as width x height."""
    widths, heights = zip(*split.sizes, strict=True)
    if len(set(split.sizes)) == 1:
        return f'all {widths[0]} x {heights[0]}'
    low, high = min(split.sizes, key=_area), max(split.sizes, key=_area)
    return (
        f'{low[0]} x {low[1]} to {high[0]} x {high[1]}, median '
        f'{median(widths):.0f} x {median(heights):.0f}'
    )


def _area(size: tuple[int, int]) -> int:
    return size[0] * size[1]
