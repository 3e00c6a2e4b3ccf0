"""Faults of one box, and of all boxes of a COCO file."""

import math
import mmap
from dataclasses import dataclass
from pathlib import Path

from .coco_file import FULL_PARSE_BYTES, are_categories, read_json


@dataclass(frozen=True, kw_only=True)
class BoxFaults:
    """Boxes of a COCO file that training cannot use; ids are annotation ids in file order."""

    non_finite: tuple[int, ...] = ()
    degenerate: tuple[int, ...] = ()
    outside: tuple[int, ...] = ()
    unknown_category: tuple[int, ...] = ()


def box_fault(xywh: list[float], image_size: tuple[int, int] | None) -> str | None:
    """Name the fault of one box.

    Args:
        xywh: left, top, width, height in pixels.
        image_size: width and height of the image in pixels, None where unknown.

    Returns:
        The field of :class:`BoxFaults` that counts it, None for a good box.
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


def find_box_faults(
    path: str | Path, *, full_parse_bytes: int = FULL_PARSE_BYTES
) -> BoxFaults | None:
    """Check every box ``[x, y, width, height]`` (pixels) of a COCO file.

    Crowd regions and annotations marked ``ignore`` are checked as well.

    Returns:
        The faults, None for a file that is not COCO's, and for one larger than
        ``full_parse_bytes`` without NaN or Infinity, which is not parsed.

    Raises:
        AnnotationFileError: where the file is cut or no JSON; the message has its path and the
            position.
    """
    path = Path(path)
    if path.stat().st_size > full_parse_bytes:
        with path.open('rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if text.find(b'NaN') < 0 and text.find(b'Infinity') < 0:
                return None
    document = read_json(path)
    if not isinstance(document, dict) or not are_categories(document.get('categories')):
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
