"""COCO annotation files, read once and judged as mmdet and pycocotools will use them.

mmdet's ``CocoDataset`` stops at some mistakes with the name of a key and drops the rest (unknown
names, boxes without area, NaN) in silence, so the only place where these can be seen is the file.
``coco_form.py`` knows which are which; this file reads and remembers.
"""

import codecs
import gc
import json
import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmwave.errors import UserError, printable_path

from .coco_form import CocoReport, FormError, judge

_MARKS = {
    codecs.BOM_UTF8: 'the byte-order mark of UTF-8',
    codecs.BOM_UTF16_LE: 'the byte-order mark of UTF-16',
    codecs.BOM_UTF16_BE: 'the byte-order mark of UTF-16',
}
# Train, validation and test: a run reads each file for its config and for its data set.
_REMEMBERED = 4
_reports: OrderedDict[tuple[str, int, int], CocoReport | None] = OrderedDict()


class AnnotationFileError(UserError):
    """An annotation file that is cut, is no valid JSON or is not of COCO's form."""


def read_json(path: str | Path) -> Any:
    """Parse a JSON file as pycocotools does: UTF-8 without a byte-order mark.

    Raises:
        AnnotationFileError: where the file is cut or no JSON; the message has its path and the
            position.
    """
    data = Path(path).read_bytes()
    name = f'annotation file {printable_path(path)}'
    for mark, what in _MARKS.items():
        if data.startswith(mark):
            raise AnnotationFileError(
                f'{name} begins with {what}, which pycocotools cannot read: save it as UTF-8 '
                'without byte-order mark'
            )
    name += f' ({len(data)} bytes)'
    try:
        return json.loads(data.decode())
    except json.JSONDecodeError as error:
        raise AnnotationFileError(
            f'{name} is cut or no valid JSON: {error.msg} at line {error.lineno}, column '
            f'{error.colno} (character {error.pos})'
        ) from None
    except UnicodeDecodeError as error:
        raise AnnotationFileError(
            f'{name} is no text: byte {error.start} is not valid {error.encoding}'
        ) from None


def read_report(path: str | Path) -> CocoReport | None:
    """Read and judge a COCO file; a file that has not changed since is not read again.

    Returns:
        The report, None where the file is valid JSON without COCO's ``categories``.

    Raises:
        AnnotationFileError: where the file is cut, no JSON, or its lists are none; the message has
            its path.
    """
    status = os.stat(path)
    key = (os.path.realpath(path), status.st_mtime_ns, status.st_size)
    if key not in _reports:
        try:
            with _without_collector():
                _reports[key] = judge(read_json(path))
        except FormError as error:
            raise AnnotationFileError(f'annotation file {printable_path(path)}: {error}') from None
        while len(_reports) > _REMEMBERED:
            _reports.popitem(last=False)
    return _reports[key]


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep Python's garbage collector off: it would walk ten million new objects over and over."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
