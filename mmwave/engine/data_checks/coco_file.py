"""Reading a COCO annotation file as mmdet and pycocotools will, without building a data set.

Both call ``json.load(open(path))``, so that a file in another encoding than UTF-8, or one with a
byte-order mark, is refused here as there. Most of a large file are coordinates of polygons, which
cost the parser far more than all else (COCO's own 450 MB become 4 GB of objects). In a file above
:data:`SHORTEN_BYTES` sound polygons are replaced by a short one before it is parsed.
"""

import gc
import json
import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmwave.errors import UserError, printable, printable_path

SHORTEN_BYTES = 64 * 2**20
_NUMBERS = rb'\[[-+.0-9eE,\s]*\]'
# A quote inside of a JSON text is escaped, so that this key cannot be part of one.
_POLYGONS = re.compile(
    rb'"segmentation"\s*:\s*(\[\s*' + _NUMBERS + rb'(?:\s*,\s*' + _NUMBERS + rb')*\s*\])'
)
_SHORT = b'"segmentation": [[0, 0, 0, 0, 0, 0]]'
_MARKS = {
    b'\xef\xbb\xbf': 'UTF-8 with a byte-order mark',
    b'\xff\xfe': 'UTF-16',
    b'\xfe\xff': 'UTF-16',
}


class AnnotationFileError(UserError):
    """An annotation file that is cut, of another encoding or no valid JSON."""


def read_json(path: str | Path, *, shorten_bytes: int = SHORTEN_BYTES) -> Any:
    """Parse a JSON file.

    In a file that is larger than ``shorten_bytes``, polygons of numbers that mmdet accepts (six or
    more coordinates, an even number) come back as a triangle of zeros.

    Raises:
        AnnotationFileError: where the file is cut, has a byte-order mark, is no UTF-8 or no JSON;
            the message has its path and the position.
    """
    path = Path(path)
    with path.open('rb') as file:
        mark = file.read(3)
    for start, name in _MARKS.items():
        if mark.startswith(start):
            raise AnnotationFileError(
                f'annotation file {printable_path(path)} is {name}, which mmdet and pycocotools '
                'cannot read: save it as plain UTF-8'
            )
    if path.stat().st_size > shorten_bytes:
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            data = _POLYGONS.sub(_shortened, text)
        try:
            with collector_paused():
                return json.loads(data.decode('utf-8'))
        except ValueError:
            # The place of the damage is that in the file as it is.
            del data
    return _parse(path)


def _parse(path: Path) -> Any:
    data = path.read_bytes()
    about = f'annotation file {printable_path(path)} ({len(data)} bytes)'
    try:
        text = data.decode('utf-8')
        with collector_paused():
            return json.loads(text)
    except json.JSONDecodeError as error:
        raise AnnotationFileError(
            f'{about} is cut or no valid JSON: {printable(error.msg)} at '
            f'line {error.lineno}, column {error.colno} (character {error.pos})'
        ) from None
    except UnicodeDecodeError as error:
        raise AnnotationFileError(
            f'{about} is no text: byte {error.start} is not valid {error.encoding}'
        ) from None


def _shortened(match: re.Match[bytes]) -> bytes:
    for polygon in match[1].split(b']'):
        opening = polygon.rfind(b'[')
        if opening >= 0:
            commas = polygon.count(b',', opening)
            if commas < 5 or commas % 2 == 0:
                return match[0]
    return _SHORT


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep Python from looking for garbage in what a large file is parsed into."""
    # Its runs over millions of new objects, all alive, double the time of parsing.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
