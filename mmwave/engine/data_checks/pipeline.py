"""What the steps of a pipeline do with the files of a sample.

The checks judge a file only where the step that will read it is known. A data set class or a
transform of the user's own may read any format, or change what was read, so that nothing is said
about files that it touches.
"""

from collections.abc import Iterator, Mapping
from itertools import takewhile
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


def reads_images(dataset: Any) -> bool:
    """Return whether stock code alone decides which image files a built data set reads.

    Its own steps may change ``img_path`` before a stock step reads it, or read it themselves; what
    comes after the reading does not matter. A pipeline without a reading step is taken for stock
    where all of its steps are.
    """
    pipeline = getattr(dataset, 'pipeline', None)
    if not hasattr(pipeline, 'transforms') or not reads_as_stock(dataset):
        return False
    before = takewhile(lambda step: not _is_reader(step), steps(dataset))
    return all(map(is_stock, before))


def image_step(dataset: Any) -> Any:
    """Return the step that reads the images of a built data set, where it is mmcv's own.

    Returns:
        The ``LoadImageFromFile``, None where another class, a step of the user's own before it or
        the data set itself decides how images are read.
    """
    if not reads_images(dataset):
        return None
    step = next(filter(_is_reader, steps(dataset)), None)
    return step if _class_of(step) == 'mmcv.LoadImageFromFile' else None


def _class_of(step: Any) -> str:
    return f'{type(step).__module__.partition(".")[0]}.{type(step).__name__}'


def _is_reader(step: Any) -> bool:
    return is_stock(step) and type(step).__name__.startswith('Load') and 'Image' in _class_of(step)


def _flat(transforms: Any) -> Iterator[Any]:
    # Wrappers hold a list of transforms, a Compose (which holds the list) or a list of these.
    for step in getattr(transforms, 'transforms', transforms):
        # Albu keeps the settings of its transforms, which are no steps.
        if isinstance(step, Mapping):
            continue
        inner = getattr(step, 'transforms', None)
        if inner is None:  # TestTimeAug, whose sequences have the same kinds of steps
            inner = getattr(step, 'subroutines', [None])[0]
        if type(step).__name__ != 'Compose':
            yield step
        if inner is not None:
            yield from _flat(inner)
