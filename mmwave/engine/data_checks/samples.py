"""Faults of one sample, seen without opening its files: image file, class label, boxes."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmwave.errors import printable_path

from .boxes import box_fault
from .findings import Findings
from .image_files import EMPTY

MISSING, BROKEN = 'image files cannot be found', 'image files cannot be read'


def image_fault(path: str) -> tuple[str, str] | None:
    """Look an image file up without opening it.

    Returns:
        Kind of the fault and offender, None for a good file and for an address.
    """
    if '://' in path:
        return None
    try:
        size = os.stat(path).st_size
    except (OSError, ValueError):  # a path with a null character
        return MISSING, printable_path(path)
    return (BROKEN, f'{printable_path(path)} ({EMPTY})') if size == 0 else None


def is_leftover(path: str) -> bool:
    """Return whether an image is the copy that a notebook keeps of one that it showed."""
    return '/.ipynb_checkpoints/' in path


def label_fault(info: Mapping[str, Any], num_classes: int) -> str | None:
    """Compare the label (or labels) of a classification sample with the number of classes.

    Returns:
        The offender, None where every label has a class.
    """
    label = info['gt_label']
    # One label each is the common case, and there are millions of them.
    labels = (label,) if isinstance(label, int) else np.atleast_1d(label)
    if all(0 <= one < num_classes for one in labels):
        return None
    name = info.get('img_path', 'sample')
    return f'{name} (label {label}, expected 0..{num_classes - 1})'


def count_labels(labels: Sequence[Any], num_classes: int) -> np.ndarray:
    """Return how many samples have each class, by the label or the labels of each sample."""
    if not all(isinstance(label, int) for label in labels):
        labels = np.concatenate([np.ravel(label) for label in labels])  # type: ignore[assignment]
    numbers = np.asarray(labels, dtype=np.int64)
    numbers = numbers[(numbers >= 0) & (numbers < num_classes)]
    return np.bincount(numbers, minlength=num_classes)


def count_boxes(found: Findings, index: int, info: Mapping[str, Any]) -> None:
    """Count the boxes ``[left, top, right, bottom]`` (pixels) of a detection sample and faults."""
    found.boxes = (found.boxes or 0) + len(info['instances'])
    size = (info['width'], info['height']) if 'width' in info and 'height' in info else None
    for instance in info['instances']:
        box = instance.get('bbox')
        if box is None or len(box) != 4:
            continue
        left, top, right, bottom = box
        fault = box_fault([left, top, right - left, bottom - top], size)
        if fault == 'non_finite':
            offender = f'{info.get("img_path", index)} {[float(number) for number in box]}'
            found.add('boxes with NaN or infinite numbers', index, offender)
        elif fault is not None:
            setattr(found, fault, getattr(found, fault) + 1)
