"""Faults of one label map, judged as the stock transforms will read it.

A label map goes through Pillow unchanged, becomes uint8, and ``reduce_zero_label`` and
``label_map`` are applied in this order.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import ExifTags, Image

_SHOWN = 5
# Anything else (arrays, volumes) is read by the user's own transforms.
_PILLOW_SUFFIXES = (
    '.png',
    '.jpg',
    '.jpeg',
    '.bmp',
    '.tif',
    '.tiff',
    '.gif',
    '.webp',
    '.ppm',
    '.pgm',
)
# EXIF orientations that exchange width and height.
_TURNED = (5, 6, 7, 8)


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """Which values the label maps of a segmentation data set may hold.

    Attributes:
        num_classes: labels below it have a class; None: unknown, every value is accepted.
        ignore_index: the label that the loss leaves out.
        reduce_zero_label: 0 becomes 255, every other label one less.
        label_map: label in the file -> label of the training.
    """

    num_classes: int | None
    ignore_index: int = 255
    reduce_zero_label: bool = False
    label_map: Mapping[int, int] | None = None

    @cached_property
    def allowed(self) -> np.ndarray:
        """A boolean for each of the 256 values that a file can hold."""
        values: np.ndarray = np.arange(256)
        if self.num_classes is None:
            return np.ones(256, dtype=bool)
        if self.reduce_zero_label:
            values = np.where((values == 0) | (values == 255), 255, values - 1)
        before = values.copy()
        for old, new in (self.label_map or {}).items():
            values[before == old] = new
        return (values < self.num_classes) | (values == self.ignore_index)


def label_map_fault(img_path: str, seg_map_path: str, rule: LabelRule) -> tuple[str, str] | None:
    """Read a label map and the header of its image.

    Returns:
        Kind of the first fault found and offender, None for a good map.
    """
    if '://' in seg_map_path or not seg_map_path.lower().endswith(_PILLOW_SUFFIXES):
        return None
    if not os.path.exists(seg_map_path):
        return 'label maps cannot be found', seg_map_path
    kind = 'label maps do not fit'
    try:
        with Image.open(seg_map_path) as label_map:
            channels = len(label_map.getbands())
            if channels != 1:
                return kind, f'{seg_map_path} (label map has {channels} channels, expected 1)'
            labels = np.asarray(label_map)
    except (OSError, SyntaxError) as error:
        # Pillow's PNG reader raises SyntaxError for a broken file.
        return 'label maps cannot be read', f'{seg_map_path} ({error})'
    try:
        size = _image_size(img_path)
    except (OSError, SyntaxError):
        size = None  # a fault of its own
    if size is not None and size != labels.shape:
        return kind, (
            f'{seg_map_path} (label map is {labels.shape[0]} x {labels.shape[1]}, '
            f'image is {size[0]} x {size[1]})'
        )
    wrong = _wrong_values(labels, rule)
    if wrong:
        shown = ', '.join(map(str, wrong[:_SHOWN])) + (', …' if len(wrong) > _SHOWN else '')
        expected = _ranges(np.flatnonzero(rule.allowed))
        return kind, f'{seg_map_path} (labels {shown}; expected {expected})'
    return None


def _image_size(path: str) -> tuple[int, int] | None:
    """Return height and width as the stock transforms load the image: turned as EXIF says.

    None for a missing file (a fault of its own) and for what Pillow refuses to read.
    """
    if not os.path.exists(path) or not path.lower().endswith(_PILLOW_SUFFIXES):
        return None
    try:
        image = Image.open(path)
    except Image.DecompressionBombError:
        # Pillow's limit is not OpenCV's, which the stock transforms read images with.
        return None
    with image:
        width, height = image.size
        # Asked of JPEG only: for PNG, Pillow would decode the whole image to answer.
        jpeg = image.format in ('JPEG', 'MPO')
        turned = jpeg and image.getexif().get(ExifTags.Base.Orientation) in _TURNED
    return (width, height) if turned else (height, width)


def _wrong_values(labels: np.ndarray, rule: LabelRule) -> list[Any]:
    allowed = rule.allowed
    if labels.dtype == np.uint8:
        held = np.flatnonzero(np.bincount(labels.ravel(), minlength=256))
        return held[~allowed[held]].tolist()
    # Wider types wrap around silently when they become uint8, so they are judged before that.
    held = np.unique(labels.astype(np.uint8) if labels.dtype == bool else labels)
    fits = (held >= 0) & (held <= 255) & (held == np.floor(held))
    fits[fits] = allowed[held[fits].astype(np.uint8)]
    return held[~fits].tolist()


def _ranges(values: np.ndarray) -> str:
    """Return [0, 1, 2, 255] as ``'0..2, 255'``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ', '.join(f'{run[0]}..{run[-1]}' if len(run) > 1 else f'{run[0]}' for run in runs)
