"""What can be wrong with one sample, as pure functions, and the tally of it.

Labels and label maps are judged as the stock transforms will read them: a label map goes through
Pillow unchanged, becomes uint8, and ``reduce_zero_label`` and ``label_map`` are applied in this
order.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from mmwave.engine.coco_file import BoxFaults, box_fault
from mmwave.errors import UserError

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


class DataError(UserError):
    """Data that cannot be trained or evaluated on."""


@dataclass
class Findings:
    """What one process, or all together, found in one data set.

    ``boxes`` is None when the data set has no boxes to count (it is not one for detection);
    ``in_file`` is what its annotation file holds, the boxes that it dropped included.
    """

    samples: int = 0
    images: int = 0
    label_maps: int = 0
    boxes: int | None = None
    degenerate: int = 0
    outside: int = 0
    in_file: BoxFaults | None = None
    # kind of the fault -> (how many, the first few as (index of the sample, offender))
    faults: dict[str, tuple[int, list[tuple[int, str]]]] = field(default_factory=dict)

    def add(self, kind: str, index: int, offender: str) -> None:
        count, shown = self.faults.get(kind, (0, []))
        self.faults[kind] = (count + 1, [*shown, (index, offender)][:_SHOWN])

    @classmethod
    def merged(cls, parts: Iterable['Findings']) -> 'Findings':
        """Adds up what the processes found; the offenders of the lowest indices are kept."""
        total = cls()
        for part in parts:
            for name in ('samples', 'images', 'label_maps', 'degenerate', 'outside'):
                setattr(total, name, getattr(total, name) + getattr(part, name))
            total.in_file = total.in_file or part.in_file
            if part.boxes is not None:
                total.boxes = (total.boxes or 0) + part.boxes
            for kind, (count, shown) in part.faults.items():
                known, before = total.faults.get(kind, (0, []))
                total.faults[kind] = (known + count, sorted([*before, *shown])[:_SHOWN])
        return total

    def errors(self) -> list[str]:
        """One text for each kind of fault, with its count and the first offenders."""
        lines = []
        for kind, (count, shown) in self.faults.items():
            more = f', … and {count - len(shown)} more' if count > len(shown) else ''
            lines.append(f'{count} {kind}: ' + ', '.join(text for _, text in shown) + more)
        return lines

    def warnings(self) -> list[str]:
        file = self.in_file or BoxFaults()
        # The file's count includes what the data set kept, so the two must not be added up.
        counts = {
            'without area': max(self.degenerate, len(file.degenerate)),
            'outside of their image': max(self.outside, len(file.outside)),
            'of an unknown category': len(file.unknown_category),
        }
        bad = [f'{count} {what}' for what, count in counts.items() if count]
        return [f'boxes that cannot be learnt from: {", ".join(bad)}'] if bad else []

    def summary(self) -> str:
        parts = [f'{self.samples} samples', f'{self.images} image files looked up']
        if self.boxes is not None:
            parts.append(f'{self.boxes} boxes')
        if self.label_maps:
            parts.append(f'{self.label_maps} label maps read')
        return ', '.join(parts)


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """Which values the label maps of a segmentation data set may hold.

    ``num_classes`` None: unknown, every value is fine.
    """

    num_classes: int | None
    ignore_index: int = 255
    reduce_zero_label: bool = False
    label_map: Mapping[int, int] | None = None

    @cached_property
    def allowed(self) -> np.ndarray:
        """A boolean for each of the 256 values that a file can hold."""
        values = np.arange(256)
        if self.num_classes is None:
            return np.ones(256, dtype=bool)
        if self.reduce_zero_label:
            values = np.where((values == 0) | (values == 255), 255, values - 1)
        before = values.copy()
        for old, new in (self.label_map or {}).items():
            values[before == old] = new
        return (values < self.num_classes) | (values == self.ignore_index)


def spaced(items: Sequence[int], most: int | None) -> Sequence[int]:
    """At most `most` of the items, evenly spaced, the first and the last among them."""
    if most is None or len(items) <= most:
        return items
    positions = np.linspace(0, len(items) - 1, most).round().astype(int)
    return [items[position] for position in positions]


def is_local(dataset: Any) -> bool:
    """Whether a data set reads its files from the local file system."""
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', ())
    for holder in (dataset, *transforms):
        backend_args = getattr(holder, 'backend_args', None) or {}
        if backend_args.get('backend', 'local') not in ('local', 'LocalBackend'):
            return False
    return True


def image_fault(path: str) -> tuple[str, str] | None:
    """Looks an image file up without opening it."""
    if '://' in path:
        return None
    try:
        size = os.stat(path).st_size
    except OSError:
        return 'image files cannot be found', path
    return ('image files are empty', path) if size == 0 else None


def label_fault(info: Mapping[str, Any], num_classes: int) -> str | None:
    """Compares the label (or labels) of a classification sample with the number of classes."""
    label = info['gt_label']
    # One label each is the common case, and there are millions of them.
    labels = (label,) if isinstance(label, int) else np.atleast_1d(label)
    if all(0 <= one < num_classes for one in labels):
        return None
    name = info.get('img_path', 'sample')
    return f'{name} (label {label}, expected 0..{num_classes - 1})'


def box_faults(found: Findings, index: int, info: Mapping[str, Any]) -> None:
    """Counts the boxes ``[left, top, right, bottom]`` (pixels) of a detection sample."""
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


def label_map_fault(img_path: str, seg_map_path: str, rule: LabelRule) -> tuple[str, str] | None:
    """Reads a label map and the header of its image; the fault is the first one met."""
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
    except (OSError, SyntaxError) as error:
        return 'image files cannot be read', f'{img_path} ({error})'
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
    """Height and width as the stock transforms load the image: turned as EXIF says.

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
    """[0, 1, 2, 255] as ``'0..2, 255'``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ', '.join(f'{run[0]}..{run[-1]}' if len(run) > 1 else f'{run[0]}' for run in runs)
