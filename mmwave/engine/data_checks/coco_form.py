"""What mmdet and pycocotools do with each part of a COCO file, said before they do it.

Written after mmdet 3.5.1 (``datasets/coco.py``, ``datasets/transforms/loading.py``,
``evaluation/metrics/coco_metric.py``) and pycocotools 2.0.11 (``coco.py``, ``cocoeval.py``).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmwave.errors import printable

from .tally import SHOWN, Tally, count_fault

# A box may reach a little beyond the image by rounding.
_SLACK = 1.0
# So many boxes beyond their image, of which so many fit as corners, are corners. Real boxes reach
# beyond their image here and there; [x, y, width, height] never fits as corners throughout.
_BEYOND, _FIT = 0.2, 0.95
_NUMBERS = frozenset((int, float))
_NO_MASK = 'annotations without segmentation, where masks are trained or evaluated'


class FormError(ValueError):
    """A file whose parts are not lists of dicts."""


@dataclass
class CocoReport:
    """What is wrong with a COCO file, by who is concerned.

    Attributes:
        names: of the categories, in the file's order.
        num_images: number of different images.
        num_annotations: number of annotations.
        faults: what mmdet stops at or reads as something else, whatever the run is.
        mask_faults: what it stops at where it loads masks.
        metric_faults: what pycocotools stops at where it evaluates masks.
        remarks: what mmdet leaves out in silence.
        mask_remarks: what it leaves out where it loads masks.
        unmarked: number of annotations without ``iscrowd``, which pycocotools needs.
        unmatched: ids of annotations that pycocotools cannot match, the first few.
    """

    names: tuple[str, ...]
    num_images: int = 0
    num_annotations: int = 0
    faults: Tally = field(default_factory=dict)
    mask_faults: Tally = field(default_factory=dict)
    metric_faults: Tally = field(default_factory=dict)
    remarks: Tally = field(default_factory=dict)
    mask_remarks: Tally = field(default_factory=dict)
    unmarked: int = 0
    unmatched: list[Any] = field(default_factory=list)
    _sides: dict[Any, float] = field(default_factory=dict, repr=False)
    _annotated: dict[str, set[Any]] = field(default_factory=dict, repr=False)

    def errors(self, *, masks: bool = False, metric_masks: bool = False) -> Tally:
        """Return what the run cannot go on with.

        Args:
            masks: the pipeline loads masks.
            metric_masks: a metric compares masks with those of the file.
        """
        needed = [self.faults]
        needed += [self.mask_faults] if masks else []
        needed += [self.metric_faults] if metric_masks else []
        return {kind: entry for tally in needed for kind, entry in tally.items()}

    def warnings(self, *, masks: bool = False) -> Tally:
        """Return what the run goes on without."""
        return self.remarks | (self.mask_remarks if masks else {})

    def images_kept(
        self, classes: Sequence[str], *, filter_empty_gt: bool = False, min_size: int = 0
    ) -> int:
        """Return how many images mmdet's ``CocoDataset`` keeps under this ``filter_cfg``."""
        wanted = set().union(*(self._annotated.get(name, ()) for name in classes))
        return sum(
            side >= min_size and (not filter_empty_gt or image in wanted)
            for image, side in self._sides.items()
        )


def judge(document: Any) -> CocoReport | None:
    """Judge a parsed file.

    Returns:
        The report, None where the file has no categories as COCO has them, a list of dicts with id
        and name.

    Raises:
        FormError: where images or annotations are no list of dicts.
    """
    categories = document.get('categories') if isinstance(document, Mapping) else None
    if not _are_categories(categories):
        return None
    images = _list_of_dicts(document, 'images', needed=True)
    annotations = _list_of_dicts(document, 'annotations', needed=False)
    report = CocoReport(names=tuple(category['name'] for category in categories))
    report.num_annotations = len(annotations)
    report._annotated = {name: set() for name in map(str, report.names)}
    known = _judge_categories(categories, report)
    sizes = _judge_images(images, report)
    boxes = _Boxes()
    seen: set[Any] = set()
    for place, annotation in enumerate(annotations):
        _judge_annotation(annotation, place, sizes, known, seen, boxes, report)
    if boxes.beyond > _BEYOND * boxes.number and boxes.corners >= _FIT * boxes.beyond:
        report.remarks[
            f'of {boxes.number} boxes reach beyond their image, and would fit into it as corners '
            '[x1, y1, x2, y2]: COCO wants [x, y, width, height]'
        ] = (boxes.beyond, boxes.shown)
    return report


def _are_categories(categories: Any) -> bool:
    return (
        isinstance(categories, list)
        and len(categories) > 0
        and all(isinstance(c, dict) and 'name' in c and 'id' in c for c in categories)
    )


def _list_of_dicts(document: Mapping[str, Any], name: str, *, needed: bool) -> list[Any]:
    if name not in document and not needed:  # the images of a test set, whose labels are secret
        return []
    value = document.get(name)
    if not isinstance(value, list):
        shown = 'missing' if name not in document else f'of type {type(value).__name__}'
        raise FormError(f'{name!r} is {shown}, expected a list')
    odd = next((place for place, item in enumerate(value) if not isinstance(item, dict)), None)
    if odd is not None:
        raise FormError(
            f'entry {odd} of {name!r} is {printable(repr(value[odd]))}, expected a dict'
        )
    return value


def _judge_categories(categories: list[dict[str, Any]], report: CocoReport) -> dict[Any, str]:
    known: dict[Any, str] = {}
    for category in categories:
        number, name = category['id'], category['name']
        if not _hashable(number):
            count_fault(report.faults, 'categories whose id is a list or dict', repr(name))
        elif number in known:
            text = f'id {number!r} of {known[number]!r} and {name!r}'
            count_fault(report.faults, 'category ids twice', printable(text))
        else:
            known[number] = str(name)
    return known


def _judge_images(images: list[dict[str, Any]], report: CocoReport) -> dict[Any, tuple[Any, Any]]:
    """Return width and height by image id, those without a usable size as (0, 0)."""
    sizes: dict[Any, tuple[Any, Any]] = {}
    first: dict[Any, Any] = {}
    for place, image in enumerate(images):
        name = image.get('file_name')
        text = printable(repr(name) if name is not None else f'entry {place}')
        missing = [key for key in ('id', 'file_name', 'width', 'height') if key not in image]
        for key in missing:
            count_fault(report.faults, f'images without {key}', text)
        number = image.get('id')
        if 'id' in missing or not _hashable(number):
            if 'id' not in missing:
                count_fault(report.faults, 'images whose id is a list or dict', text)
            continue
        if name is not None and not isinstance(name, str):
            count_fault(report.faults, 'images whose file_name is no text', text)
        if number in first:
            same = first[number] == name
            tally = report.remarks if same else report.faults
            others = '' if same else f'{printable(repr(first[number]))} and '
            kind = 'images listed twice' if same else 'image ids of two images'
            count_fault(tally, kind, f'{number!r} ({others}{text})')
        first.setdefault(number, name)
        width, height = image.get('width'), image.get('height')
        if type(width) in _NUMBERS and type(height) in _NUMBERS:
            if width <= 0 or height <= 0:
                kind = 'images without a positive size, whose boxes mmdet drops'
                count_fault(report.remarks, kind, f'{text} ({width} x {height})')
        else:
            if 'width' not in missing and 'height' not in missing:
                shown = printable(f'{text} ({width!r} x {height!r})')
                count_fault(report.faults, 'images whose width or height is no number', shown)
            width = height = 0
        sizes[number] = (width, height)
    report.num_images = len(sizes)
    report._sides = {number: min(size) for number, size in sizes.items()}
    return sizes


@dataclass
class _Boxes:
    """How many boxes there are, reach beyond their image, and would fit into it as corners."""

    number: int = 0
    beyond: int = 0
    corners: int = 0
    shown: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: Any, box: list[Any], size: tuple[Any, Any]) -> None:
        x, y, width, height = box
        self.number += 1
        if x + width > size[0] + _SLACK or y + height > size[1] + _SLACK:
            self.beyond += 1
            if len(self.shown) < SHOWN:
                self.shown.append((-1, f'annotation {number!r} {box}'))
            if x < width <= size[0] + _SLACK and y < height <= size[1] + _SLACK:
                self.corners += 1


def _judge_annotation(
    annotation: dict[str, Any],
    place: int,
    sizes: dict[Any, tuple[Any, Any]],
    known: dict[Any, str],
    seen: set[Any],
    boxes: _Boxes,
    report: CocoReport,
) -> None:
    """Follow one annotation the way that mmdet and pycocotools go with it."""
    # There are a million of these: no text is made, and nothing looked at twice, before it is due.
    try:
        number, image = annotation['id'], annotation['image_id']
        category = annotation['category_id']
        twice, lost = number in seen, image not in sizes
        strange = category not in known
    except (KeyError, TypeError):  # missing, or a list or dict
        _judge_ids(annotation, place, report)
        return
    if twice:
        count_fault(report.faults, 'annotation ids twice', repr(number))
    seen.add(number)
    if lost:
        _unknown(annotation, 'image', sizes, report)
        return
    if not strange:
        report._annotated[known[category]].add(image)
    _judge_for_metric(annotation, number, report)
    if annotation.get('ignore', False):
        return
    reason = _dropped(annotation, sizes[image], report)
    if reason:
        kind = f'boxes {reason}, which mmdet drops'
        count_fault(report.remarks, kind, _name(annotation))
    elif reason is None and strange:
        _unknown(annotation, 'category', known, report)
    elif reason is None:
        boxes.add(number, annotation['bbox'], sizes[image])
        _judge_mask(annotation, report)


def _name(annotation: dict[str, Any]) -> str:
    return f'annotation {printable(repr(annotation["id"]))}'


def _judge_ids(annotation: dict[str, Any], place: int, report: CocoReport) -> None:
    text = _name(annotation) if 'id' in annotation else f'entry {place} of annotations'
    for key in ('id', 'image_id', 'category_id'):
        if key not in annotation:
            count_fault(report.faults, f'annotations whose {key} is missing', text)
        elif isinstance(annotation[key], list | dict):
            count_fault(report.faults, f'annotations whose {key} is a list or dict', text)


def _unknown(
    annotation: dict[str, Any], what: str, known: Mapping[Any, Any], report: CocoReport
) -> None:
    """Count an id that is not in the file, a text for a number and the reverse apart."""
    value = annotation[f'{what}_id']
    text = f'{_name(annotation)} ({what}_id {printable(repr(value))})'
    if _of_other_type(value) in known:
        others = {'image': 'images', 'category': 'categories'}[what]
        kind = f'annotations whose {what}_id is {_type(value)}, where the ids of the {others} are '
        count_fault(report.faults, kind + _type(_of_other_type(value)), text)
    else:
        kind = f'annotations of an unknown {what}, which mmdet drops'
        count_fault(report.remarks, kind, text)


def _dropped(annotation: dict[str, Any], size: tuple[Any, Any], report: CocoReport) -> str | None:
    """Return why mmdet drops a box, None where it does not, '' for one it cannot read."""
    box = annotation.get('bbox')
    if not isinstance(box, list) or len(box) != 4 or not _NUMBERS.issuperset(map(type, box)):
        _not_as_expected(annotation, 'bbox', 'list of four numbers', report)
        return ''
    x, y, width, height = box
    if not math.isfinite(x + y + width + height):
        kind = 'annotations with NaN or infinite boxes'
        count_fault(report.faults, kind, _name(annotation))
        return ''
    inside_x = min(x + width, size[0]) - max(x, 0)
    inside_y = min(y + height, size[1]) - max(y, 0)
    if inside_x <= 0 or inside_y <= 0:
        return 'outside of their image' if width > 0 and height > 0 else 'without area'
    area = annotation.get('area')
    if type(area) not in _NUMBERS:
        _not_as_expected(annotation, 'area', 'number', report)
        return ''
    if area <= 0:
        return 'whose area is given as 0 or less'
    return 'less than one pixel wide or high' if width < 1 or height < 1 else None


def _not_as_expected(
    annotation: dict[str, Any], key: str, expected: str, report: CocoReport
) -> None:
    shown = printable(repr(annotation[key])) if key in annotation else 'missing'
    text = f'{_name(annotation)} ({shown})'
    count_fault(report.faults, f'annotations whose {key} is no {expected}', text)


def _judge_for_metric(annotation: dict[str, Any], number: Any, report: CocoReport) -> None:
    """See what pycocotools will miss, which evaluates ignored annotations and crowds as well."""
    if annotation.get('iscrowd') is None:
        report.unmarked += 1
    # The id of the truth that a prediction matches is stored as a number, and 0 means none.
    if number == 0 or type(number) not in _NUMBERS:
        report.unmatched.append(number)
    mask = annotation.get('segmentation')
    if not mask:
        count_fault(report.metric_faults, _NO_MASK, _name(annotation))
    elif isinstance(mask, list) and (not isinstance(mask[0], list) or len(mask[0]) < 4):
        kind = 'annotations whose segmentation has no area'
        count_fault(report.metric_faults, kind, _name(annotation))


def _judge_mask(annotation: dict[str, Any], report: CocoReport) -> None:
    mask = annotation.get('segmentation')
    if not mask:
        count_fault(report.mask_faults, _NO_MASK, _name(annotation))
    elif isinstance(mask, list):
        if not all(isinstance(polygon, list) for polygon in mask):
            kind = 'annotations whose segmentation is no list of polygons'
            count_fault(report.mask_faults, kind, _name(annotation))
        elif all(len(polygon) % 2 or len(polygon) < 6 for polygon in mask):
            kind = 'annotations without a polygon of at least 3 points, which mmdet ignores'
            count_fault(report.mask_remarks, kind, _name(annotation))
    elif not isinstance(mask, dict) or not (
        isinstance(mask.get('counts'), list | str) and mask.get('size') is not None
    ):
        kind = 'annotations whose run-length code has no counts or size, which mmdet ignores'
        count_fault(report.mask_remarks, kind, _name(annotation))


def _hashable(value: Any) -> bool:
    return not isinstance(value, list | dict)


def _type(value: Any) -> str:
    return 'text' if isinstance(value, str) else 'numbers'


def _of_other_type(value: Any) -> Any:
    if not isinstance(value, str):
        return str(value)
    try:
        return int(value)
    except ValueError:
        return None
