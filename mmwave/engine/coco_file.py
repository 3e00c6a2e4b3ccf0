"""What a COCO annotation file says, read without building a data set from it.

mmdet's ``CocoDataset`` drops what it cannot use (unknown names, boxes without area, NaN) in
silence, so the only place where a mistake can still be seen is the file itself. Files up to
`FULL_PARSE_BYTES` are parsed whole. Larger ones (COCO's own has 450 MB, which takes seconds and
gigabytes for every process) are searched as bytes for the few facts that are needed.
"""

import json
import math
import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmwave.errors import UserError

FULL_PARSE_BYTES = 64 * 2**20
_CATEGORIES = re.compile(rb'"categories"\s*:\s*(?=\[)')
_ANNOTATIONS = re.compile(rb'"annotations"\s*:\s*\[\s*\{')
_FIRST_CHUNK = 2**16


class AnnotationFileError(UserError):
    """An annotation file that is cut or is no valid JSON."""


@dataclass(frozen=True, kw_only=True)
class CocoSummary:
    """The facts about one COCO file that decide whether a data set can be built from it.

    ``document`` is the parsed file, None when it was too large to be parsed whole.
    """

    names: tuple[str, ...]
    has_annotations: bool
    document: Mapping[str, Any] | None = field(default=None, repr=False)

    def images_kept(
        self, classes: tuple[str, ...], *, filter_empty_gt: bool = False, min_size: int = 0
    ) -> int | None:
        """How many images mmdet's ``CocoDataset`` keeps under this ``filter_cfg``.

        Returns None when the file was too large to be parsed whole.
        """
        if self.document is None:
            return None
        images = self.document.get('images', ())
        if filter_empty_gt:
            wanted = {c['id'] for c in self.document['categories'] if c['name'] in classes}
            annotations = self.document.get('annotations', ())
            annotated = {a['image_id'] for a in annotations if a['category_id'] in wanted}
            images = [image for image in images if image['id'] in annotated]
        return sum(min(image['width'], image['height']) >= min_size for image in images)


@dataclass(frozen=True, kw_only=True)
class BoxFaults:
    """Boxes of a COCO file that training cannot use; ids are annotation ids in file order."""

    non_finite: tuple[int, ...] = ()
    degenerate: tuple[int, ...] = ()
    outside: tuple[int, ...] = ()
    unknown_category: tuple[int, ...] = ()


def read_json(path: str | Path) -> Any:
    """Parses a JSON file.

    Raises:
        AnnotationFileError: the file is cut or no JSON; the message has its path and the position.
    """
    data = Path(path).read_bytes()
    try:
        return json.loads(data)
    except json.JSONDecodeError as error:
        raise AnnotationFileError(
            f'annotation file {path} ({len(data)} bytes) is cut or no valid JSON: {error.msg} at '
            f'line {error.lineno}, column {error.colno} (character {error.pos})'
        ) from None
    except UnicodeDecodeError as error:
        raise AnnotationFileError(
            f'annotation file {path} ({len(data)} bytes) is no text: byte {error.start} is not '
            f'valid {error.encoding}'
        ) from None


def summarize(path: str | Path, *, full_parse_bytes: int = FULL_PARSE_BYTES) -> CocoSummary | None:
    """Reads the category names of a COCO file, in the file's order.

    Returns None when the file is valid JSON but has no COCO ``categories``. In a file that is
    larger than `full_parse_bytes` a damage that leaves the brackets in balance goes unseen here.

    Raises:
        AnnotationFileError: the file is cut or no JSON; the message has its path and the position.
    """
    path = Path(path)
    document = None
    if path.stat().st_size > full_parse_bytes:
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if _balanced(text):
                categories = _search_categories(text)
                if _are_coco(categories):
                    names = tuple(category['name'] for category in categories)
                    filled = _ANNOTATIONS.search(text) is not None
                    return CocoSummary(names=names, has_annotations=filled)
                return None
        # Brackets out of balance: cut, or brackets inside of strings. Only the parser can tell.
    document = read_json(path)
    categories = document.get('categories') if isinstance(document, dict) else None
    if not _are_coco(categories):
        return None
    return CocoSummary(
        names=tuple(category['name'] for category in categories),
        has_annotations=bool(document.get('annotations')),
        document=document,
    )


def find_box_faults(
    path: str | Path, *, full_parse_bytes: int = FULL_PARSE_BYTES
) -> BoxFaults | None:
    """Looks at every box ``[x, y, width, height]`` (pixels) of a COCO file.

    Crowd regions and annotations marked ``ignore`` are looked at as well. The answer is None for a
    file that is not COCO's, and for one larger than `full_parse_bytes` without NaN or Infinity,
    which is not parsed.

    Raises:
        AnnotationFileError: the file is cut or no JSON; the message has its path and the position.
    """
    path = Path(path)
    if path.stat().st_size > full_parse_bytes:
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if text.find(b'NaN') < 0 and text.find(b'Infinity') < 0:
                return None
    document = read_json(path)
    if not isinstance(document, dict) or not _are_coco(document.get('categories')):
        return None
    sizes = {
        image['id']: (image['width'], image['height'])
        for image in document.get('images', ())
        if 'width' in image and 'height' in image
    }
    known = {category['id'] for category in document['categories']}
    faults: dict[str, list[int]] = {name: [] for name in BoxFaults.__dataclass_fields__}
    for annotation in document.get('annotations', ()):
        # Captions and panoptic segments are COCO files too, without a box for each annotation.
        if 'bbox' not in annotation:
            continue
        if annotation['category_id'] not in known:
            faults['unknown_category'].append(annotation['id'])
        kind = box_fault(annotation['bbox'], sizes.get(annotation['image_id']))
        if kind is not None:
            faults[kind].append(annotation['id'])
    return BoxFaults(**{name: tuple(ids) for name, ids in faults.items()})


def box_fault(xywh: list[float], image_size: tuple[int, int] | None) -> str | None:
    """Names the fault of one box, as the field of `BoxFaults` that counts it; None for a good box.

    Args:
        xywh: left, top, width, height in pixels.
        image_size: width and height of the image in pixels, None when unknown.
    """
    x, y, width, height = xywh
    if not all(map(math.isfinite, xywh)):
        return 'non_finite'
    if width <= 0 or height <= 0:
        return 'degenerate'
    if image_size is not None:
        outside_x = x >= image_size[0] or x + width <= 0
        outside_y = y >= image_size[1] or y + height <= 0
        if outside_x or outside_y:
            return 'outside'
    return None


def _are_coco(categories: Any) -> bool:
    return (
        isinstance(categories, list)
        and len(categories) > 0
        and all(isinstance(c, dict) and 'name' in c and 'id' in c for c in categories)
    )


def _balanced(text: mmap.mmap) -> bool:
    counts = dict.fromkeys(b'{}[]', 0)
    for start in range(0, len(text), 2**24):
        chunk = text[start : start + 2**24]
        for bracket in counts:
            counts[bracket] += chunk.count(bracket)
    return counts[ord('{')] == counts[ord('}')] and counts[ord('[')] == counts[ord(']')]


def _search_categories(text: mmap.mmap) -> Any:
    # From the end, because that is where COCO's own files have them.
    position = text.rfind(b'"categories"')
    while position >= 0:
        match = _CATEGORIES.match(text, position)
        if match is not None:
            return _decode_value(text, match.end())
        position = text.rfind(b'"categories"', 0, position)
    return None


def _decode_value(text: mmap.mmap, start: int) -> Any:
    size = _FIRST_CHUNK
    while True:
        # The chunk may end inside of a character: what is cut there is not part of the value.
        chunk = text[start : start + size].decode('utf-8', errors='ignore')
        try:
            return json.JSONDecoder().raw_decode(chunk)[0]
        except json.JSONDecodeError:
            if start + size >= len(text):
                return None
            size *= 4
