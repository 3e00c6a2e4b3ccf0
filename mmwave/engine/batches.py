"""What a batch of a training consists of."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmwave.errors import printable_path

_SHOWN = 5


def image_paths(batch: Any) -> list[str]:
    """Return the paths of the images in a batch, each once, as its samples name them.

    Args:
        batch: as a data loader of mmpretrain, mmdet or mmseg yields it, of one branch or several.
    """
    return list(dict.fromkeys(_paths(batch)))


def describe_images(paths: Iterable[str]) -> str:
    """Return the number of images and the first paths as printable text, empty for none."""
    paths = list(paths)
    if not paths:
        return ''
    shown = ', '.join(map(printable_path, paths[:_SHOWN]))
    more = f' and {len(paths) - _SHOWN} more' if len(paths) > _SHOWN else ''
    return f'{len(paths)} image{"s" if len(paths) > 1 else ""}: {shown}{more}'


def _paths(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        path = node.get('img_path')
        if isinstance(path, str):
            yield path
        for value in node.values():
            yield from _paths(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _paths(value)
    else:
        path = getattr(node, 'img_path', None)
        if isinstance(path, str):
            yield path
