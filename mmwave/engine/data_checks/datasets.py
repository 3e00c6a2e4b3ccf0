"""Questions about one data set, built or as a config describes it: wrappers, storage, labels."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .pipeline import steps

# mmengine is imported inside a function: the check of a config imports this file before it.


class Place(NamedTuple):
    """A data set inside of wrappers.

    Attributes:
        key: where it is, as dotted key.
        dataset: built, or its settings in a config.
        scope: in a config, the scope of its type.
    """

    key: str
    dataset: Any
    scope: str | None


def unwrap(dataset: Any, key: str = '', scope: str | None = None) -> Iterator[Place]:
    """Yield the data sets inside of wrappers (RepeatDataset, ConcatDataset, …).

    Args:
        dataset: built, or its settings in a config.
        key: dotted key of ``dataset``, which those of the data sets inside begin with.
        scope: of the config, which ``_scope_`` of a wrapper replaces for what is inside.
    """
    if isinstance(dataset, Mapping):
        held = dataset
        scope = dataset.get('_scope_', scope)
    elif _is_base_dataset(dataset):
        held = {}
    else:
        names = ('datasets', 'dataset')
        held = {name: getattr(dataset, name) for name in names if hasattr(dataset, name)}
    if 'datasets' in held:
        for index, inner in enumerate(held['datasets']):
            yield from unwrap(inner, f'{key}.datasets.{index}', scope)
    elif 'dataset' in held:
        yield from unwrap(held['dataset'], f'{key}.dataset', scope)
    else:
        yield Place(key, dataset, scope)


def wrappers_of(dataset: Any, inner: Any) -> tuple[Any, ...]:
    """Return the wrappers around ``inner`` inside of a built data set, the outermost first."""
    if dataset is inner:
        return ()
    held = getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]
    for one in held:
        if one is inner or (one is not None and wrappers_of(one, inner)):
            return (dataset, *wrappers_of(one, inner))
    return ()


def bare_type(settings: Any) -> str:
    """Return the name of the class that settings build, without scope and module; '' for none."""
    kind = settings.get('type') if isinstance(settings, Mapping) else None
    return kind.rpartition('.')[2] if isinstance(kind, str) else getattr(kind, '__name__', '')


def loads_labels(dataset: Any) -> bool:
    """Return whether the pipeline of a data set, built or in a config, reads labels.

    A test set may have none. One without a pipeline counts as reading them.
    """
    if isinstance(dataset, Mapping):
        names = list(_names(dataset.get('pipeline') or ()))
    else:
        names = [type(step).__name__ for step in steps(dataset)]
    return not names or any('Annotations' in name for name in names)


def is_local(dataset: Any) -> bool:
    """Return whether a built data set reads its files from the local file system."""
    holders = (dataset, *steps(dataset))
    if any(getattr(holder, 'file_client_args', None) for holder in holders):
        return False  # the form of older configs, which names a client instead of a file system
    return all(is_local_backend(getattr(holder, 'backend_args', None)) for holder in holders)


def is_local_backend(backend_args: Mapping[str, Any] | None) -> bool:
    """Return whether ``backend_args`` of mmengine's file functions name the local file system."""
    return (backend_args or {}).get('backend', 'local') in ('local', 'LocalBackend')


def metainfo(dataset: Any) -> dict[str, Any]:
    """Return the description of a built data set, empty where it has none."""
    return getattr(dataset, 'metainfo', None) or {}


def folder(dataset: Any) -> str:
    """Return the folder that a built data set reads images from."""
    prefix = getattr(dataset, 'data_prefix', None) or {}
    return str(prefix.get('img_path') or prefix.get('img') or getattr(dataset, 'data_root', ''))


def describe(dataset: Any) -> str:
    """Return type and place of a built data set, as messages name it."""
    where = getattr(dataset, 'ann_file', None) or folder(dataset)
    return f'{type(dataset).__name__} ({where})'


def coco_path(dataset: Any) -> str | None:
    """Return the local JSON file that a built data set was read from, None where there is none."""
    path = getattr(dataset, 'ann_file', None)
    if not isinstance(path, str) or not path.endswith('.json') or '://' in path:
        return None
    return path if is_local(dataset) else None


def reads_coco(dataset: Any) -> bool:
    """Return whether a built data set reads its file as mmdet's ``CocoDataset`` does.

    Its subclasses for other forms (LVIS, panoptic) read it by code of their own.
    """
    kind = type(dataset)
    base = next((b for b in kind.__mro__ if b.__name__ == 'CocoDataset'), None)
    names = ('COCOAPI', 'load_data_list', 'parse_data_info')
    return base is not None and all(
        getattr(kind, name, None) is getattr(base, name, None) for name in names
    )


def _names(pipeline: Any) -> Iterator[str]:
    """Yield the types of a pipeline's steps in a config, of those inside of wrappers too."""
    for step in pipeline:
        if isinstance(step, Mapping):
            yield str(step.get('type'))
            yield from _names(step.get('transforms') or ())
        elif isinstance(step, list | tuple):
            yield from _names(step)


def _is_base_dataset(dataset: Any) -> bool:
    from mmengine.dataset import BaseDataset

    return isinstance(dataset, BaseDataset)
