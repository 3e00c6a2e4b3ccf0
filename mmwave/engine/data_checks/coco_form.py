"""What mmdet's ``CocoDataset`` and ``CocoMetric`` will do with a COCO file, said beforehand.

``CocoDataset`` looks keys up without a question (a ``KeyError`` without the file's name), drops
boxes in silence and takes the last of two entries with one id. ``CocoMetric`` needs more keys than
training does, and fails on them after an epoch. :func:`report` reads a file once and tells all of
it; who renders the report says for what the file is used.
"""

import os
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmwave.errors import printable

from .coco_annotations import AnnotationJudge, Image, is_key
from .coco_file import SHORTEN_BYTES, collector_paused, read_json
from .coco_tally import CocoTally, Level
from .coco_use import Use

_CACHE: dict[tuple[Any, ...], 'CocoReport | None'] = {}
_MOST_CACHED = 8


@dataclass(kw_only=True)
class CocoReport:
    """The facts about one COCO file.

    Attributes:
        names: of the categories, in the file's order.
        has_annotations: whether the file holds any.
        tally: kinds of faults by level, with counts and first offenders.
        sides: image id -> the shorter side in pixels.
        annotated: ids of images with an annotation of the wanted classes.
    """

    names: tuple[Any, ...]
    has_annotations: bool
    tally: CocoTally = field(default_factory=CocoTally, repr=False)
    sides: dict[Hashable, float] = field(default_factory=dict, repr=False)
    annotated: set[Hashable] = field(default_factory=set, repr=False)

    def images_kept(self, *, filter_empty_gt: bool = False, min_size: int = 0) -> int:
        """Return how many images mmdet's ``CocoDataset`` keeps under this ``filter_cfg``."""
        sides = self.sides.items()
        return sum(
            side >= min_size for key, side in sides if not filter_empty_gt or key in self.annotated
        )

    def errors(self, use: Use) -> list[str]:
        """Return a text for each kind of fault that ends a run with this use."""
        return self.tally.lines(*self._levels(use))

    def warnings(self, use: Use) -> list[str]:
        """Return a text for each kind of fault that the run goes on with."""
        lines = self.tally.lines(Level.REMARK, *([Level.MASK_REMARK] if use.masks else []))
        dropped = self.tally.lines(Level.DROPPED)
        if dropped:
            lines.append(f'boxes that cannot be learnt from: {"; ".join(dropped)}')
        return lines

    def filled(self) -> list[str]:
        """Return what the metric lacks and gets a harmless value for, in memory."""
        return self.tally.lines(Level.FILLED)

    @staticmethod
    def _levels(use: Use) -> list[Level]:
        levels = [Level.BUILD]
        if use.masks:
            levels.append(Level.MASKS)
        if use.metrics:
            levels.append(Level.METRIC)
        if 'segm' in use.metrics:
            levels.append(Level.SEGM)
        return levels


def is_read_here(path: str | Path) -> bool:
    """Return whether this process of a launch reads a file before the data sets are built.

    Small files are read in each, which then say the same; large ones in the first alone, because
    time and memory of all together would be spent on one answer.
    """
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    rank = next((rank for rank in ranks if rank), '0')
    return rank == '0' or os.stat(path).st_size <= SHORTEN_BYTES


def report(
    path: str | Path, classes: Sequence[str] | None, *, shorten_bytes: int = SHORTEN_BYTES
) -> CocoReport | None:
    """Read a COCO file and judge it; a process does so once until the file changes.

    Args:
        path: of the file.
        classes: names of the classes of the data set, None for all of the file.
        shorten_bytes: see :func:`read_json`.

    Returns:
        The facts, None where the file is valid JSON without COCO's ``categories``.

    Raises:
        AnnotationFileError: where the file cannot be parsed; the message has its path and the
            position.
    """
    status = os.stat(path)
    wanted = None if classes is None else frozenset(classes)
    key = (os.path.realpath(path), status.st_mtime_ns, status.st_size, wanted)
    if key not in _CACHE:
        with collector_paused():
            found = judge(read_json(path, shorten_bytes=shorten_bytes), wanted)
        while len(_CACHE) >= _MOST_CACHED:
            del _CACHE[next(iter(_CACHE))]
        _CACHE[key] = found
    return _CACHE[key]


def judge(document: Any, classes: frozenset[str] | None = None) -> CocoReport | None:
    """Judge a parsed file, see :func:`report`."""
    categories = document.get('categories') if isinstance(document, Mapping) else None
    if not are_categories(categories):
        return None
    annotations = document.get('annotations', [])
    out = CocoReport(
        names=tuple(category['name'] for category in categories),
        has_annotations=bool(annotations),
    )
    ids = [category['id'] for category in categories]
    wanted = {c['id'] for c in categories if classes is None or c['name'] in classes}
    for key, count in Counter(ids).items():
        if count > 1:
            out.tally.add(Level.REMARK, 'ids of two or more categories', printable(key))
    if _mixed(wanted):
        out.tally.add(Level.METRIC, 'mixture of text and numbers', 'categories.id')
    images = _judge_images(out, document.get('images', []))
    if not isinstance(annotations, list):
        out.tally.add(Level.BUILD, 'part of another form', _not_a_list('annotations', annotations))
        return out
    judge = AnnotationJudge(out.tally, images, set(ids), wanted)
    for index, annotation in enumerate(annotations):
        judge.see(index, annotation)
    judge.finish()
    out.annotated = judge.annotated
    return out


def are_categories(categories: Any) -> bool:
    """Return whether ``categories`` of a file are COCO's: a list of dicts with id and name."""
    return (
        isinstance(categories, list)
        and len(categories) > 0
        and all(
            isinstance(c, dict) and is_key(c.get('name', [])) and is_key(c.get('id', []))
            for c in categories
        )
    )


def _judge_images(out: CocoReport, images: Any) -> dict[Hashable, Image]:
    if not isinstance(images, list):
        out.tally.add(Level.BUILD, 'part of another form', _not_a_list('images', images))
        return {}
    found: dict[Hashable, Image] = {}
    for index, image in enumerate(images):
        if not isinstance(image, dict):
            out.tally.add(Level.BUILD, 'entries of images that are no objects', f'entry {index}')
            continue
        key = image.get('id')
        if 'id' not in image or not is_key(key):
            out.tally.add(Level.BUILD, "images without 'id'", f'entry {index}')
            continue
        name = f'id {printable(key)}'
        if key in found:
            out.tally.add(Level.REMARK, 'ids of two or more images, of which the last counts', name)
        for field_name, kinds in (
            ('file_name', str),
            ('width', (int, float)),
            ('height', (int, float)),
        ):
            if not isinstance(image.get(field_name), kinds):
                out.tally.add(Level.BUILD, f'images without a usable {field_name!r}', name)
        width, height = (_number(image.get(side)) for side in ('width', 'height'))
        if width is None or height is None:
            found[key] = None
            continue
        if not (width > 0 and height > 0):
            out.tally.add(
                Level.REMARK, 'images without a positive size', f'{name} ({width} x {height})'
            )
        found[key] = (width, height)
        out.sides[key] = min(width, height)
    if _mixed(found):
        out.tally.add(Level.METRIC, 'mixture of text and numbers', 'images.id')
    return found


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) else None


def _mixed(keys: Any) -> bool:
    """Return whether ids cannot be sorted, as ``CocoMetric`` sorts them."""
    return len({isinstance(key, str) for key in keys}) > 1


def _not_a_list(name: str, value: Any) -> str:
    return f'{name!r} is {type(value).__name__}, not a list of objects'
