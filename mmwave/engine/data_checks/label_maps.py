"""Faults of label maps, judged as the step that reads them will read them.

A label map is decoded unchanged, becomes uint8, and ``reduce_zero_label`` and ``label_map`` are
applied in this order.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from torch import nn

from mmwave.errors import printable

from .findings import Findings
from .heads import ignore_index, num_labels
from .label_reading import MapReading

_SHOWN = 5
_CHUNK = 2**20
_DO_NOT_FIT = 'label maps do not fit'
_NOT_FOUND = 'label maps cannot be found'


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
    def trained(self) -> np.ndarray:
        """What training sees for each of the 256 values that a file can hold."""
        values: np.ndarray = np.arange(256)
        if self.reduce_zero_label:
            values = np.where((values == 0) | (values == 255), 255, values - 1)
        before = values.copy()
        for old, new in (self.label_map or {}).items():
            values[before == old] = new
        return values

    @cached_property
    def allowed(self) -> np.ndarray:
        """A boolean for each of the 256 values that a file can hold."""
        if self.num_classes is None:
            return np.ones(256, dtype=bool)
        return (self.trained < self.num_classes) | (self.trained == self.ignore_index)


@dataclass(frozen=True, kw_only=True)
class MapReport:
    """What one label map holds.

    Attributes:
        fault: kind and offender, None for a map that can be trained on.
        remark: the same of what is warned of.
        pixels: number of pixels of each of the 256 labels that training can see, None where they
            are not judged.
    """

    fault: tuple[str, str] | None = None
    remark: tuple[str, str] | None = None
    pixels: np.ndarray | None = None


def label_rule(dataset: Any, model: nn.Module) -> LabelRule:
    """Return the rule for the label maps of a built data set of mmseg."""
    info = dataset.get_data_info(0)
    return LabelRule(
        num_classes=num_labels(dataset, model),
        ignore_index=ignore_index(dataset, model),
        reduce_zero_label=bool(info.get('reduce_zero_label')),
        label_map=info.get('label_map'),
    )


def inspect_label_maps(
    pool: ThreadPoolExecutor,
    found: Findings,
    dataset: Any,
    chosen: Sequence[int],
    reading: MapReading,
    rule: LabelRule,
) -> None:
    """Read the label maps of the ``chosen`` samples and count what they hold."""
    infos = [dataset.get_data_info(index) for index in chosen]
    pairs = [(str(info.get('img_path', '')), info['seg_map_path']) for info in infos]
    for index, report in zip(
        chosen, pool.map(lambda pair: read_label_map(*pair, reading, rule), pairs), strict=True
    ):
        if report.fault is not None:
            found.add(report.fault[0], index, report.fault[1])
        if report.remark is not None:
            found.warn(report.remark[0], index, report.remark[1])
        if report.pixels is not None:
            found.pixels = report.pixels + (0 if found.pixels is None else found.pixels)
            found.label_maps += 1
    if not found.label_maps:
        found.label_maps_left_to = reading.left_to


def read_label_map(
    img_path: str, seg_map_path: str, reading: MapReading, rule: LabelRule
) -> MapReport:
    """Read a label map and the header of its image."""
    if '://' in seg_map_path:
        return MapReport()
    if not os.path.exists(seg_map_path):
        missing = (_NOT_FOUND, seg_map_path)
        # A step of the user's own before the reader may still change the path, or write the file.
        return MapReport(remark=missing) if reading.before else MapReport(fault=missing)
    if reading.left_to:
        return MapReport()
    try:
        labels = reading.read(seg_map_path)
    except Exception as error:  # every backend raises its own
        reason = printable(error)
        return MapReport(fault=('label maps cannot be read', f'{seg_map_path} ({reason})'))
    if labels.ndim != 2:
        return MapReport(fault=(_DO_NOT_FIT, f'{seg_map_path} ({_many_channels(labels)})'))
    pixels, wrong, wrapped = _judge(labels, rule)
    if wrong:
        expected = _ranges(np.flatnonzero(rule.allowed))
        offender = f'{seg_map_path} (labels {_first(wrong)}; expected {expected})'
        return MapReport(fault=(_DO_NOT_FIT, offender), pixels=pixels)
    size = reading.other_image_size(img_path, labels.shape)
    if size is not None:
        sizes = (
            f'{seg_map_path} (label map is {labels.shape[0]} x {labels.shape[1]}, '
            f'image is {size[0]} x {size[1]})'
        )
        if not reading.is_resized_alike(size, labels.shape):
            return MapReport(fault=(_DO_NOT_FIT, sizes), pixels=pixels)
        name = type(reading.resizer).__name__
        kind = f'label maps of another size than their image, until {name} makes them one'
        return MapReport(remark=(kind, sizes), pixels=pixels)
    if wrapped:
        kind = f'label maps with values that become {rule.ignore_index}, which is ignored'
        return MapReport(remark=(kind, f'{seg_map_path} ({_first(wrapped)})'), pixels=pixels)
    return MapReport(pixels=pixels)


def _judge(labels: np.ndarray, rule: LabelRule) -> tuple[np.ndarray, list[Any], list[Any]]:
    """Count the pixels by what training sees; list the wrong values, and those that wrap to ignore.

    The reader makes bytes of any type in silence: 258 becomes 2, and is wrong, while -1 and 65535
    become 255, which usually is what they meant.
    """
    held, counts = _held(labels)
    with np.errstate(invalid='ignore'):
        read = held.astype(np.uint8)
    wraps = read != held
    ignored = wraps & (rule.trained[read] == rule.ignore_index) & (held.dtype.kind in 'iu')
    wrong = np.where(wraps, ~ignored, ~rule.allowed[read])
    pixels = np.bincount(rule.trained[read] & 255, weights=counts, minlength=256)
    return pixels.astype(np.int64), held[wrong].tolist(), held[ignored].tolist()


def _held(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of a label map and how many pixels have each."""
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    if labels.dtype != np.uint8:
        return np.unique(labels, return_counts=True)
    # In chunks, because bincount makes eight bytes of each.
    flat = labels.ravel()
    counts = np.zeros(256, dtype=np.int64)
    for start in range(0, flat.size, _CHUNK):
        counts += np.bincount(flat[start : start + _CHUNK], minlength=256)
    held = np.flatnonzero(counts)
    return held, counts[held]


def _many_channels(labels: np.ndarray) -> str:
    if labels.ndim == 3 and labels.shape[2] <= 4:
        return f'label map has {labels.shape[2]} channels, expected 1'
    return f'label map is {" x ".join(map(str, labels.shape))}, expected height x width'


def _first(values: list[Any]) -> str:
    return ', '.join(map(str, values[:_SHOWN])) + (', …' if len(values) > _SHOWN else '')


def _ranges(values: np.ndarray) -> str:
    """Return [0, 1, 2, 255] as ``'0..2, 255'``."""
    runs = np.split(values, np.flatnonzero(np.diff(values) != 1) + 1)
    return ', '.join(f'{run[0]}..{run[-1]}' if len(run) > 1 else f'{run[0]}' for run in runs)
