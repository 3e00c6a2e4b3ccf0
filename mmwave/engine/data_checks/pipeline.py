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
    pipeline = getattr(dataset, 'pipeline', None)
    return tuple(_flat(pipeline)) if hasattr(pipeline, 'transforms') else ()


def is_stock(part: Any) -> bool:
    """Return whether the class of a transform or data set is one of the libraries, or ours."""
    return type(part).__module__.partition('.')[0] in _STOCK


def _flat(transforms: Any) -> Iterator[Any]:
    # Wrappers hold a list of transforms, a Compose (which holds the list) or a list of these.
    for step in getattr(transforms, 'transforms', transforms):
        inner = getattr(step, 'transforms', None)
        if inner is None:  # TestTimeAug, whose sequences have the same kinds of steps
            inner = getattr(step, 'subroutines', [None])[0]
        if type(step).__name__ != 'Compose':
            yield step
        if inner is not None:
            yield from _flat(inner)
