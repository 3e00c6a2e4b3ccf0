"""How often the classes occur: pixels of label maps, and samples of classification data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from mmwave.errors import printable

from .class_folders import stray_note, strays
from .class_names import name_notes
from .datasets import folder, metainfo
from .findings import Findings
from .label_maps import LabelRule, label_rule

_SHOWN = 5
_ALL_SHOWN = 12  # classes whose shares fit into one readable line


def note_classes(found: Findings, dataset: Any, model: nn.Module, mode: str) -> str:
    """Note what the data of a built data set hold of each class, and what they lack.

    Args:
        found: of all processes together, to which notes and faults are added.
        dataset: without wrappers.
        model: whose head says which label is ignored.
        mode: ``'train'``, ``'val'`` or ``'test'``.

    Returns:
        The share of the pixels that each class has, '' where no label maps were read.
    """
    folders = tuple(getattr(dataset, 'folder_to_idx', None) or ())
    if strays(folders):
        found.notes.append(f'in {folder(dataset)!r}: {stray_note(folders)}')
    classes = metainfo(dataset).get('classes')
    if classes is None or isinstance(classes, str):
        return ''
    found.notes += name_notes(metainfo(dataset), type(dataset))
    if mode == 'train':
        judge_samples(found, classes)
    if found.pixels is None:
        return ''
    rule = label_rule(dataset, model)
    judge_pixels(found, classes, rule, len(dataset), mode=mode)
    shares = share_line(found.pixels, classes, rule.ignore_index)
    return f'pixels of {found.label_maps} label maps: {shares}'


def share_line(pixels: np.ndarray, classes: Sequence[str], ignore_index: int) -> str:
    """Return the share of the pixels that each class has, or the largest and smallest of many.

    Args:
        pixels: number of pixels of each label.
        classes: their names, in the order of the labels.
        ignore_index: the label without a class.
    """
    total = max(int(pixels.sum()), 1)
    counts = _of_classes(pixels, classes, ignore_index)
    order = np.argsort(-counts, kind='stable')
    texts = [f'{printable(classes[i], 40)} {_percent(counts[i] / total)}' for i in order]
    if len(texts) > _ALL_SHOWN:
        present = texts[: int((counts > 0).sum())]
        few = [*present[:_SHOWN], '…', *present[-_SHOWN:]]
        texts = few if len(present) > 2 * _SHOWN else present
        texts.append(f'{len(classes) - len(present)} of {len(classes)} classes have none')
    ignored = int(pixels[ignore_index]) if 0 <= ignore_index < len(pixels) else 0
    return ', '.join(texts) + f'; ignored {_percent(ignored / total)}'


def judge_pixels(
    found: Findings, classes: Sequence[str], rule: LabelRule, num_maps: int, *, mode: str
) -> None:
    """Note what the label maps that were read lack: the labels of some classes, or of all.

    Args:
        found: of all processes together.
        classes: their names.
        rule: by which the label maps were read.
        num_maps: how many the data set has.
        mode: ``'train'``, ``'val'`` or ``'test'``.
    """
    if found.pixels is None or not found.pixels.sum():
        return
    counts = _of_classes(found.pixels, classes, rule.ignore_index)
    absent = [name for name, count in zip(classes, counts, strict=True) if count == 0]
    if not absent:
        return
    of_maps = f'{found.label_maps} label maps'
    if found.label_maps < num_maps:
        of_maps += f' that were read of {num_maps}'
    # Where two classes are present, something can be learnt, and others may be rare.
    why = _why_ignored(found.pixels, rule) if len(classes) - len(absent) < 2 else ''
    if len(absent) < len(classes):
        found.notes.append(f'{_none_of(absent, classes, f"pixel in {of_maps}")}{why}')
    elif mode != 'test' and found.label_maps == num_maps:
        offender = f'all pixels of {of_maps} are ignored{why}'
        found.add('data set without a label to learn from', -1, offender)
    else:
        # The labels of a test set may be secret, and the other maps may have some.
        found.notes.append(f'all pixels of {of_maps} are ignored{why}')


def judge_samples(found: Findings, classes: Sequence[str]) -> None:
    """Note the classes that no sample of a classification data set has."""
    if found.labels is None or len(found.labels) != len(classes):
        return
    absent = [name for name, count in zip(classes, found.labels, strict=True) if count == 0]
    if absent:
        found.notes.append(_none_of(absent, classes, 'sample'))


def _none_of(absent: Sequence[str], classes: Sequence[str], what: str) -> str:
    names = ', '.join(repr(printable(name, 40)) for name in absent[:_SHOWN])
    more = f', … and {len(absent) - _SHOWN} more' if len(absent) > _SHOWN else ''
    have = 'has' if len(absent) == 1 else 'have'
    return f'{len(absent)} of {len(classes)} classes {have} no {what}: {names}{more}'


def _of_classes(pixels: np.ndarray, classes: Sequence[str], ignore_index: int) -> np.ndarray:
    counts = pixels[: len(classes)].copy()
    if ignore_index < len(counts):
        counts[ignore_index] = 0
    return counts


def _why_ignored(pixels: np.ndarray, rule: LabelRule) -> str:
    """Say which labels are ignored, where pixels are."""
    if not 0 <= rule.ignore_index < len(pixels) or not pixels[rule.ignore_index]:
        return ''
    share = _percent(pixels[rule.ignore_index] / pixels.sum())
    labels = np.flatnonzero(rule.trained == rule.ignore_index)
    shown = ', '.join(map(str, labels[:_SHOWN])) + (', …' if len(labels) > _SHOWN else '')
    why = ' (0 by reduce_zero_label)' if rule.reduce_zero_label else ''
    text = f'; label {shown} means ignored{why}, as {share} of the pixels are'
    if not rule.reduce_zero_label and set(np.flatnonzero(pixels)) <= {0, rule.ignore_index}:
        text += f'; masks of 0 and {rule.ignore_index} must be written as 0 and 1'
    return text


def _percent(share: float) -> str:
    """Return a share with two digits that count: 34 %, 0.021 %, 0 %."""
    return f'{100 * share:.2g} %' if share < 0.995 else f'{100 * share:.3g} %'
