"""Sizes of image files by their headers."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from mmwave.apis.usage import UsageError
from mmwave.errors import printable_path

MOST = 2000
_SHOWN = 5


def spread(items: Sequence[str], most: int = MOST) -> list[str]:
    """Return all items, or ``most`` of many, evenly over their order."""
    if len(items) <= most:
        return list(items)
    return [items[index * len(items) // most] for index in range(most)]


def sizes_of(paths: Sequence[str], split: str, warnings: list[str]) -> list[tuple[int, int]]:
    """Return width and height in pixels of these images, or of a sample of many.

    Args:
        paths: of the images.
        split: ``'train'`` or ``'val'``, for warnings.
        warnings: a line is added where some cannot be read, which a training may skip.

    Raises:
        UsageError: where none can be read.
    """
    chosen = spread(paths)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(_size, chosen))
    sizes = [size for size in found if size is not None]
    broken = [path for path, size in zip(chosen, found, strict=True) if size is None]
    if not sizes:
        raise UsageError(f'no image can be read: {_named(broken)}')
    if broken:
        warnings.append(f'{split}: images that cannot be read: {_named(broken)}')
    return sizes


def _named(paths: Sequence[str]) -> str:
    more = f', … and {len(paths) - _SHOWN} more' if len(paths) > _SHOWN else ''
    return ', '.join(map(printable_path, paths[:_SHOWN])) + more


def _size(path: str) -> tuple[int, int] | None:
    """Return the size by the file's header, None where it has none that can be read."""
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, Image.DecompressionBombError):  # Pillow's for a file of no known format too
        return None
