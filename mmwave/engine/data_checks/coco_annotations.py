"""What mmdet and pycocotools will do with each annotation of a COCO file."""

import math
from collections.abc import Container, Hashable, Mapping
from typing import Any

from mmwave.errors import printable

from .coco_tally import CocoTally, Level

Image = tuple[float, float] | None
"""Width and height in pixels, None where the file does not state them as numbers."""

_NUMBERS = (int, float)
_HOLDERS = (list, dict)
_KEYS = ('id', 'image_id', 'category_id')
# Corners: so many of the boxes must reach beyond their image, so many must fit it as corners.
_BEYOND_SHARE, _CORNERS_SHARE = 0.2, 0.95


class AnnotationJudge:
    """Judge annotations one by one; :meth:`finish` tells what only all of them can show.

    Args:
        tally: where faults are counted.
        images: image id -> size.
        categories: ids of all categories of the file.
        wanted: those of the classes of the data set.
    """

    def __init__(
        self,
        tally: CocoTally,
        images: Mapping[Hashable, Image],
        categories: Container[Hashable],
        wanted: Container[Hashable],
    ) -> None:
        self.tally = tally
        self.images = images
        self.categories = categories
        self.wanted = wanted
        self.annotated: set[Hashable] = set()
        self._seen: dict[Hashable, bool] = {}
        self._strangers: dict[str, list[Hashable]] = {'image_id': [], 'category_id': []}
        self._beyond: list[Hashable] = []
        self._index = 0
        self._annotation: Any = None
        self._count = self._boxes = self._corners = 0

    def see(self, index: int, annotation: Any) -> None:
        """Judge the annotation at this place of the file."""
        self._index, self._annotation = index, annotation
        add = self._add
        if not isinstance(annotation, dict):
            add(Level.BUILD, 'entries of annotations that are no objects')
            return
        self._count += 1
        lacking = [key for key in _KEYS if not is_key(annotation.get(key, []))]
        for key in lacking:
            add(Level.BUILD, f'annotations without {key!r}')
        if lacking:
            return
        key, image_id, category = (
            annotation['id'],
            annotation['image_id'],
            annotation['category_id'],
        )
        known = image_id in self.images
        self._see_id(key, known=known)
        if category in self.wanted:
            self.annotated.add(image_id)
        if category not in self.categories:
            self._strangers['category_id'].append(category)
        if not known:
            self._strangers['image_id'].append(image_id)
            add(Level.DROPPED, 'of images that the file does not have')
            return
        kept = self._see_box(annotation, self.images[image_id])
        if category in self.wanted:
            self._see_truth(annotation)
            self._see_mask(annotation, self.images[image_id], kept=kept)

    def finish(self) -> None:
        """Tell what all annotations together show."""
        sides = {
            'image_id': ('images.id', self.images),
            'category_id': ('categories.id', self.categories),
        }
        for key, strangers in self._strangers.items():
            where, known = sides[key]
            texts = {str(own): own for own in known}  # type: ignore[attr-defined]
            other = [own for own in strangers if str(own) in texts]
            if other:
                all_of_them = len(other) == self._count
                kind = (
                    f'annotations with {key} of type {type(other[0]).__name__} where {where} is '
                    f'{type(texts[str(other[0])]).__name__}'
                )
                for own in other:
                    self.tally.add(
                        Level.BUILD if all_of_them else Level.REMARK, kind, repr(printable(own))
                    )
        if (
            len(self._beyond) >= _BEYOND_SHARE * self._boxes > 0
            and self._corners >= _CORNERS_SHARE * self._boxes
        ):
            kind = (
                f'of {self._boxes} boxes reach beyond their image as [x, y, width, height] and '
                'would fit it as corners [x1, y1, x2, y2]'
            )
            for beyond in self._beyond:
                self.tally.add(Level.REMARK, kind, f'id {printable(beyond)}')

    def _add(self, level: Level, kind: str) -> None:
        # The name is made here, because nearly all annotations are good and need none.
        entry = self._annotation
        named = isinstance(entry, dict) and 'id' in entry
        name = f'id {printable(entry["id"])}' if named else f'entry {self._index}'
        self.tally.add(level, kind, name)

    def _see_id(self, key: Hashable, *, known: bool) -> None:
        if key in self._seen:
            both = known and self._seen[key]
            level = Level.BUILD if both else Level.REMARK
            self._add(level, 'ids of two or more annotations')
            known = known or self._seen[key]
        self._seen[key] = known

    def _see_box(self, annotation: dict[str, Any], size: Image) -> bool:
        """Return whether mmdet keeps the box."""
        add = self._add
        if annotation.get('ignore', False):
            add(Level.DROPPED, "marked 'ignore' (evaluation counts them all the same)")
            return False
        if not is_box(annotation.get('bbox')):
            problem = 'without' if 'bbox' not in annotation else 'with another than 4 numbers in'
            add(Level.BUILD, f"annotations {problem} 'bbox'")
            return False
        x, y, width, height = box = annotation['bbox']
        if not math.isfinite(sum(map(abs, box))):
            if annotation['category_id'] in self.wanted:
                add(Level.BUILD, 'annotations with NaN or infinite boxes')
            return False
        if size is None:
            return False
        self._boxes += 1
        fits = width > x >= 0 and height > y >= 0 and width <= size[0] + 1 and height <= size[1] + 1
        self._corners += fits
        if fits and (x + width > size[0] + 2 or y + height > size[1] + 2):
            self._beyond.append(annotation['id'])
        reason = _why_dropped(annotation, size)
        if reason is None and annotation['category_id'] not in self.categories:
            reason = 'of an unknown category'
        if reason == 'area':
            problem = 'without' if 'area' not in annotation else 'with no number as'
            add(Level.BUILD, f"annotations {problem} 'area'")
        elif reason is not None:
            add(Level.DROPPED, reason)
        return reason is None

    def _see_truth(self, annotation: dict[str, Any]) -> None:
        """Count what evaluation needs and training does not."""
        add = self._add
        if not is_box(annotation.get('bbox')):
            add(Level.METRIC, 'annotations without a box of 4 numbers')
        elif not is_number(annotation.get('area')):
            add(Level.FILLED, "annotations without 'area', width times height is taken")
        if not is_match_id(annotation['id']):
            add(Level.FILLED, 'annotation ids that pycocotools takes for no match')
        crowd = annotation.get('iscrowd')
        if crowd is None:
            add(Level.FILLED, "annotations without 'iscrowd', 0 is taken")
        elif isinstance(crowd, str):
            kind = "annotations with a text as 'iscrowd', which mmdet takes for a crowd, even '0'"
            add(Level.REMARK, kind)
            if not crowd.strip().isdecimal():
                add(Level.METRIC, "annotations with a text as 'iscrowd' that is no number")

    def _see_mask(self, annotation: dict[str, Any], size: Image, *, kept: bool) -> None:
        mask = annotation.get('segmentation')
        problem = _mask_problem(mask, size)
        if problem is None:
            return
        fatal, text = problem
        if kept:
            level = Level.MASKS if fatal else Level.MASK_REMARK
            ending = '' if fatal else ', which are ignored in training'
            self._add(level, f'annotations {text}{ending}')
        if not is_evaluable(mask):
            self._add(Level.SEGM, f'annotations {text}')


def is_key(value: Any) -> bool:
    """Return whether a value of a file can be an id at all: no list and no object."""
    return not isinstance(value, _HOLDERS)


def is_number(value: Any) -> bool:
    """Return whether a value of a file is a number."""
    return isinstance(value, _NUMBERS)


def is_box(value: Any) -> bool:
    """Return whether a value of a file is a list of four numbers."""
    return (
        isinstance(value, list)
        and len(value) == 4
        and isinstance(value[0], _NUMBERS)
        and isinstance(value[1], _NUMBERS)
        and isinstance(value[2], _NUMBERS)
        and isinstance(value[3], _NUMBERS)
    )


def is_match_id(key: Any) -> bool:
    """Return whether pycocotools, which notes ids of matches in an array, can tell it from none."""
    return is_number(key) and key != 0 and key == key


def is_polygon(value: Any) -> bool:
    """Return whether mmdet takes a value of a file as polygon: six or more, evenly many numbers."""
    return (
        isinstance(value, list) and len(value) >= 6 and len(value) % 2 == 0 and is_number(value[0])
    )


def is_evaluable(mask: Any) -> bool:
    """Return whether pycocotools can rasterize a mask, after polygons of no use were left out."""
    if isinstance(mask, list):
        return any(map(is_polygon, mask)) or (
            len(mask) > 0
            and all(isinstance(p, list) and len(p) > 4 and is_number(p[0]) for p in mask)
        )
    return _is_rle(mask)


def _why_dropped(annotation: dict[str, Any], size: tuple[float, float]) -> str | None:
    """Follow mmdet's rule; ``'area'`` is an area that it cannot compare."""
    x, y, width, height = annotation['bbox']
    if not (size[0] > 0 and size[1] > 0):
        return 'in images without a positive size'
    inside_x = min(x + width, size[0]) - max(x, 0)
    inside_y = min(y + height, size[1]) - max(y, 0)
    if inside_x <= 0 or inside_y <= 0:
        return 'with w or h below 1' if width <= 0 or height <= 0 else 'outside of their image'
    if not is_number(annotation.get('area')):
        return 'area'
    if width < 1 or height < 1:
        return 'with w or h below 1'
    return 'with area <= 0' if annotation['area'] <= 0 else None


def _is_rle(mask: Any) -> bool:
    return (
        isinstance(mask, dict)
        and isinstance(mask.get('counts'), list | str)
        and isinstance(mask.get('size'), list)
        and len(mask['size']) == 2
    )


def _mask_problem(mask: Any, size: Image) -> tuple[bool, str] | None:
    """Return whether reading a mask fails, and the fault; None for a good mask."""
    if not mask:
        return True, "without 'segmentation'"
    if isinstance(mask, list):
        if len(mask) == 1 and is_polygon(mask[0]):  # by far the most
            return None
        if not all(isinstance(polygon, list) for polygon in mask):
            return True, "with no list of polygons in 'segmentation'"
        usable = [p for p in mask if len(p) >= 6 and len(p) % 2 == 0]
        if not usable:
            return False, 'without a polygon of 6 or more, evenly many coordinates'
        good = all(is_number(polygon[0]) for polygon in usable)
        return None if good else (True, "with polygons that are no numbers in 'segmentation'")
    if not isinstance(mask, dict):
        return True, "with neither polygons nor RLE in 'segmentation'"
    if not _is_rle(mask):
        return False, "without 'counts' and 'size' of an RLE"
    if size is not None and mask['size'] != [size[1], size[0]]:
        return True, 'with an RLE of another size than the image'
    return None
