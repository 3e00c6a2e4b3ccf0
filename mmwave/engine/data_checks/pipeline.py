"""What the steps of a pipeline do with the files of a sample.

The checks judge a file only where the step that will read it is known. A data set class or a
transform of the user's own may read any format, or change what was read, so that nothing is said
about files that it touches.
"""

from collections.abc import Iterator, Mapping
from typing import Any

_STOCK = ('mmengine', 'mmcv', 'mmdet', 'mmpretrain', 'mmseg', 'mmwave')


def steps(dataset: Any) -> tuple[Any, ...]:
    """Return the transforms of a built data set in their order, those inside of wrappers too."""
    pipeline = getattr(dataset, 'pipeline', None)
    return tuple(_flat(pipeline)) if hasattr(pipeline, 'transforms') else ()


def is_stock(part: Any) -> bool:
    """Return whether the class of a transform or data set is one of the libraries, or ours."""
    return type(part).__module__.partition('.')[0] in _STOCK


def reads_as_stock(dataset: Any) -> bool:
    """Return whether samples of a built data set come from methods of the libraries, or ours.

    A user's class that overrides ``METAINFO`` or ``load_data_list`` alone still reads its files as
    its stock base does.
    """
    return inherits(type(dataset), '__getitem__', 'prepare_data', 'get_data_info')


def inherits(cls: type | None, *methods: str) -> bool:
    """Return whether a class has these methods, all from classes of the libraries, or ours."""
    owners = [next((c for c in getattr(cls, '__mro__', ()) if m in vars(c)), None) for m in methods]
    return all(c is not None and c.__module__.partition('.')[0] in _STOCK for c in owners)


def _flat(transforms: Any) -> Iterator[Any]:
    # Wrappers hold a list of transforms, a Compose (which holds the list) or a list of these.
    for step in getattr(transforms, 'transforms', transforms):
        # Albu keeps the settings of its transforms, which are no steps.
        if isinstance(step, Mapping):
            continue
        inner = getattr(step, 'transforms', None)
        if type(step).__name__ != 'Compose':
            yield step
        if inner is not None:
            yield from _flat(inner)
