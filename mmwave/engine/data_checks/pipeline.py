"""What the steps of a pipeline do with the files of a sample.

The checks judge a file only where the step that will read it is known. A data set class or a
transform of the user's own may read any format, or change what was read, so that nothing is said
about files that it touches.
"""

from collections.abc import Iterator
from typing import Any

_STOCK = ('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'mmwave')


def steps(dataset: Any) -> tuple[Any, ...]:
    """Return the transforms of a built data set in their order, those inside of wrappers too."""
    transforms = getattr(getattr(dataset, 'pipeline', None), 'transforms', None) or ()
    return tuple(_flat(transforms))


def is_stock(part: Any) -> bool:
    """Return whether the class of a transform or data set is one of the libraries, or ours."""
    return type(part).__module__.partition('.')[0] in _STOCK


def _flat(transforms: Any) -> Iterator[Any]:
    for step in transforms:
        yield step
        inner = getattr(step, 'transforms', None)
        if isinstance(inner, list | tuple):
            yield from _flat(inner)
