"""Questions about the data sets of a config: where they are, of which class, which files."""

from __future__ import annotations

import inspect
import os.path as osp
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mmwave.engine.data_checks.datasets import Place, bare_type, is_local_backend, unwrap

from .usage import PreflightError

# torch and mmengine are imported inside functions: mmwave.apis imports this module at once.
if TYPE_CHECKING:
    from mmengine.config import Config

# mmpretrain's classes that fetch their files themselves when the folder is not there.
_FETCHING = ('CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST')


def places_of(cfg: Config, name: str, *, needed: bool) -> Iterator[Place]:
    loader = cfg.get(f'{name}_dataloader')
    if loader is None:
        if needed:
            raise PreflightError(f'the config has no {name}_dataloader')
        return
    if isinstance(loader, Mapping):
        dataset = loader.get('dataset')
        if dataset is None:
            raise PreflightError(f'{name}_dataloader has no dataset')
        for place in unwrap(dataset, f'{name}_dataloader.dataset', cfg.get('default_scope')):
            settings = place.dataset
            if isinstance(settings, Mapping) and bare_type(settings) not in _FETCHING:
                yield place


def dataset_class(place: Place) -> type | None:
    """Return the class of a data set, None for one not registered (building it says so)."""
    kind = place.dataset.get('type')
    if not isinstance(kind, str):
        return kind
    from mmengine.registry import DATASETS

    scoped = kind if '.' in kind or place.scope is None else f'{place.scope}.{kind}'
    return DATASETS.get(scoped)


def default_of(cls: type | None, name: str) -> Any:
    """Return the default of a constructor argument, looked up along the class hierarchy."""
    for base in cls.__mro__ if cls is not None else ():
        if '__init__' in vars(base):
            parameter = inspect.signature(base.__init__).parameters.get(name)
            if parameter is not None and parameter.default is not parameter.empty:
                return parameter.default
    return None


def is_local(path: Any, backend_args: Mapping[str, Any] | None = None) -> bool:
    return isinstance(path, str) and '://' not in path and is_local_backend(backend_args)


def _join(dataset: Mapping[str, Any], path: str) -> str:
    root = dataset.get('data_root')
    path = osp.expanduser(path)
    # mmengine's join_path would start the client of a remote root.
    return osp.join(root, path) if root else path


def prefixes(dataset: Mapping[str, Any]) -> dict[str, str]:
    """Return the folders of a data set, by the config key that sets each."""
    prefix = dataset.get('data_prefix')
    if isinstance(prefix, Mapping):
        return {f'data_prefix.{key}': _join(dataset, value) for key, value in prefix.items()}
    # mmpretrain: a string, and ImageNet's split names the folder when there is no prefix.
    if prefix:
        return {'data_prefix': _join(dataset, prefix)}
    if dataset.get('split') and bare_type(dataset).startswith('ImageNet'):
        return {'split': _join(dataset, dataset['split'])}
    return {'data_root': dataset['data_root']} if dataset.get('data_root') else {}


def image_folder(dataset: Mapping[str, Any]) -> str | None:
    folders = prefixes(dataset)
    return folders.get('data_prefix.img_path') or next(iter(folders.values()), None)


def ann_file_of(dataset: Mapping[str, Any]) -> str | None:
    path = dataset.get('ann_file')
    if path and isinstance(path, str):
        return _join(dataset, path)
    if bare_type(dataset).startswith('ImageNet') and dataset.get('split'):
        implied = _join(dataset, f'meta/{dataset["split"]}.txt')
        return implied if osp.exists(implied) else None
    return None
