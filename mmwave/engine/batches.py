"""What a batch of a training consists of."""

import os
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
    if isinstance(node, list | tuple):
        for value in node:
            yield from _paths(value)
        return
    is_mapping = isinstance(node, Mapping)
    path = node.get('img_path') if is_mapping else getattr(node, 'img_path', None)
    # A sample of several views or inputs has as many.
    paths = path if isinstance(path, list | tuple) else [path]
    yield from (str(path) for path in paths if isinstance(path, str | os.PathLike))
    for value in node.values() if is_mapping else ():
        yield from _paths(value)
