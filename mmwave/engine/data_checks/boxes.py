"""Faults of one box of a built data set."""

import math


def box_fault(xywh: list[float], image_size: tuple[int, int] | None) -> str | None:
    """Name the fault of one box.

    Args:
        xywh: left, top, width, height in pixels.
        image_size: width and height of the image in pixels, None where unknown.

    Returns:
        ``'non_finite'``, ``'degenerate'`` or ``'outside'``, None for a good box.
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
