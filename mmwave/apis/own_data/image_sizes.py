"""Sizes of image files by their headers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, UnidentifiedImageError

from mmwave.apis.usage import UsageError
from mmwave.errors import printable, printable_path

MOST = 2000


def spread(items: Sequence[str], most: int = MOST) -> list[str]:
    """Return all items, or ``most`` of many, evenly over their order."""
    if len(items) <= most:
        return list(items)
    return [items[index * len(items) // most] for index in range(most)]


def sizes_of(paths: Sequence[str]) -> list[tuple[int, int]]:
    """Return width and height in pixels of these images, or of a sample of many.

    Raises:
        UsageError: where one cannot be read.
    """
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(_size, spread(paths)))


def _size(path: str) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise UsageError(
            f'image {printable_path(path)} cannot be read: {printable(error)}'
        ) from error
