"""Facts about a COCO annotation file, read without building a data set from it.

mmdet's ``CocoDataset`` drops what it cannot use (unknown names, boxes without area, NaN) in
silence, so the only place where a mistake can still be seen is the file itself. Files up to
:data:`FULL_PARSE_BYTES` are parsed whole. Larger ones (COCO's own has 450 MB, which takes seconds
and gigabytes for every process) are searched as bytes for the few facts that are needed.
"""

import json
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

    Attributes:
        names: of the categories, in the file's order.
        has_annotations: whether the file holds any.
        document: the parsed file, None where it was too large to be parsed whole.
    """

    names: tuple[str, ...]
    has_annotations: bool
    document: Mapping[str, Any] | None = field(default=None, repr=False)

    def images_kept(
        self, classes: tuple[str, ...], *, filter_empty_gt: bool = False, min_size: int = 0
    ) -> int | None:
        """Return how many images mmdet's ``CocoDataset`` keeps under this ``filter_cfg``.

        Returns:
            Their number, None where the file was too large to be parsed whole.
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


def read_json(path: str | Path) -> Any:
    """Parse a JSON file.

    Raises:
        AnnotationFileError: where the file is cut or no JSON; the message has its path and the
            position.
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
    """Read the category names of a COCO file, in the file's order.

    In a file that is larger than ``full_parse_bytes`` a damage that leaves the brackets balanced is
    not detected here.

    Returns:
        The facts, None where the file is valid JSON without COCO's ``categories``.

    Raises:
        AnnotationFileError: where the file is cut or no JSON; the message has its path and the
            position.
    """
    path = Path(path)
    if path.stat().st_size > full_parse_bytes:
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if _balanced(text):
                categories = _search_categories(text)
                if not are_categories(categories):
                    return None
                filled = _ANNOTATIONS.search(text) is not None
                return CocoSummary(names=_names(categories), has_annotations=filled)
        # Brackets out of balance: cut, or brackets inside of strings. The parser decides.
    document = read_json(path)
    categories = document.get('categories') if isinstance(document, dict) else None
    if not are_categories(categories):
        return None
    filled = bool(document.get('annotations'))
    return CocoSummary(names=_names(categories), has_annotations=filled, document=document)


def are_categories(categories: Any) -> bool:
    """Return whether ``categories`` of a file are COCO's: a list of dicts with id and name."""
    return (
        isinstance(categories, list)
        and len(categories) > 0
        and all(isinstance(c, dict) and 'name' in c and 'id' in c for c in categories)
    )


def _names(categories: Any) -> tuple[str, ...]:
    return tuple(category['name'] for category in categories)


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
