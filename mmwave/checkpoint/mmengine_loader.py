"""mmengine's checkpoint loader made to read files as :func:`read_checkpoint` does."""

import logging
import os
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from mmwave.errors import UserError, printable, printable_path

from .loading import not_finite, not_finite_line, state_dict_of
from .nodes import not_a_weight
from .reading import read_checkpoint

# What mmengine's resuming and the libraries' functions for inference look up, and what the
# converters note. Above all not ``config`` and ``cfg``, texts that mmengine runs as Python.
META_KEYS = frozenset(
    {
        'epoch',
        'iter',
        'seed',
        'time',
        'experiment_name',
        'dataset_meta',
        'mmengine_version',
        'trained_with',
        'CLASSES',
        'PALETTE',
        'source',
        'sha256',
        'family',
        'arch',
        'framework',
        'weights',
        'origin',
        'licence',
        'mmwave_version',
        'backbone',
    }
)
"""Entries of ``meta`` that are kept of a file that is not trusted."""

_FLOATING = frozenset({'weight', 'bias', 'running_mean', 'running_var'})

_RUN_AS_PYTHON = 'cfg'  # mmengine's inferencers do, from the training state's runtime_info


def register_safe_loader(trust: bool = False) -> None:
    """Have mmengine read checkpoints through :func:`read_checkpoint` in this process.

    Covers local files and what mmengine downloads over http(s), its model zoos included:
    ``load_from``, resuming and ``init_cfg``. Object stores (``s3://``, ``petrel://``, ``pavi://``)
    are refused. Whatever cannot be loaded raises :class:`UserError`. Of a checkpoint's ``meta``
    only :data:`META_KEYS` are kept, and of its training state not the text of the config: mmengine
    would run such texts as Python.

    Args:
        trust: read whatever the files ask for, see :func:`read_checkpoint`, and keep all entries.
    """
    from mmengine.runner import checkpoint as mm

    # mmengine logs the part of the name behind ``load_from_``. Tensors stay on the host whatever
    # the map_location says: modules and optimizers copy them to their own device.
    def load_from_local(filename: str, map_location: Any = None) -> Any:
        if '://' in filename:
            raise UserError(
                f'{printable_path(filename)} has an address of an unknown kind: {_CURE}'
            )
        if not filename:
            raise UserError('the path of the checkpoint is empty')
        return _checked(read_checkpoint(filename, trust=trust), filename, trust)

    def load_from_http(filename: str, map_location: Any = None, **_: Any) -> Any:
        return load_from_local(_downloaded(filename))

    def load_from_store(filename: str, map_location: Any = None, **_: Any) -> Any:
        raise UserError(f'{printable_path(filename)} cannot be read safely: {_CURE}')

    def load_from_zoo(filename: str, map_location: Any = None, **options: Any) -> Any:
        scheme, name = filename.split('://', 1)
        found = _zoo_address(mm, scheme, name)
        if not found.startswith(('http://', 'https://')):  # of the user's own list of models
            return load_from_local(os.path.join(mm._get_mmengine_home(), found))
        content = load_from_http(found)
        return mm._process_mmcls_checkpoint(content) if scheme == 'mmcls' else content

    register = mm.CheckpointLoader.register_scheme
    register('', load_from_local, force=True)
    register(['http://', 'https://'], load_from_http, force=True)
    register([r'(\S+\:)?s3://', r'(\S+\:)?petrel://', 'pavi://'], load_from_store, force=True)
    register([f'{scheme}://' for scheme in _ZOOS], load_from_zoo, force=True)
    mm.load_from_http = load_from_http  # callers that bypass its scheme use this name


_CURE = 'download it and name the local file'
_ZOOS: Mapping[str, Callable[[Any], Mapping[str, str]]] = {
    'torchvision': lambda mm: mm.get_torchvision_models(),
    'modelzoo': lambda mm: mm.get_torchvision_models(),
    'open-mmlab': lambda mm: mm.get_external_models(),
    'openmmlab': lambda mm: mm.get_external_models(),
    'mmcls': lambda mm: mm.get_mmcls_models(),
}
"""mmengine's schemes of model zoos -> the addresses of their models by name."""


def _zoo_address(mm: Any, scheme: str, name: str) -> str:
    if scheme in ('open-mmlab', 'openmmlab'):
        name = mm.get_deprecated_model_names().get(name, name)
    addresses = _ZOOS[scheme](mm)
    if name not in addresses:
        raise UserError(f"no model {printable_path(name)} in mmengine's zoo {scheme}://")
    return addresses[name]


def _checked(content: Any, filename: str, trust: bool) -> dict[str, Any]:
    """Return ``content`` as mmengine may have it: a dict of weights, whose ``meta`` is a dict."""
    shown = printable_path(filename)
    if not isinstance(content, dict):
        raise UserError(
            f'{shown} holds an object of type {type(content).__name__}, expected a dict'
        )
    # Through dict's own methods: no attribute of what was read hides an entry.
    content = dict(dict.items(content))
    if not isinstance(content.get('state_dict'), Mapping) and isinstance(
        content.get('model'), Mapping
    ):
        content['state_dict'] = content['model']  # the only name that mmengine looks up
    try:
        state = state_dict_of(content)
        for name, tensor in state.items():
            # mmengine would convert them in silence. Other integers are counters and tables.
            if name.rpartition('.')[2] in _FLOATING and not tensor.is_floating_point():
                raise not_a_weight(name, f'a tensor of {tensor.dtype}')
    except UserError as error:
        raise UserError(f'{shown}: {error}') from error
    damage = not_finite_line(not_finite(state))
    if damage:
        from mmengine.logging import print_log

        print_log(f'{shown}: {damage}', logger='current', level=logging.WARNING)
    meta = content.get('meta')
    if meta is not None and not isinstance(meta, dict):
        raise UserError(f'{shown}: its meta is of type {type(meta).__name__}, expected a dict')
    return content if trust else _without_programs(content)


def _without_programs(content: dict[str, Any]) -> dict[str, Any]:
    """Return ``content`` without texts in ``meta`` and ``message_hub`` that mmengine would run."""
    kept = dict(content)
    if 'meta' in kept:
        given = dict.items(kept['meta'] or {})
        kept['meta'] = {name: value for name, value in given if name in META_KEYS}
    hub = kept.get('message_hub')
    if isinstance(hub, dict):
        kept['message_hub'] = {part: _without_config(held) for part, held in dict.items(hub)}
    return kept


def _without_config(entries: Any) -> Any:
    if not isinstance(entries, dict):
        return entries
    return {name: value for name, value in dict.items(entries) if name != _RUN_AS_PYTHON}


def _downloaded(url: str) -> str:
    """Return the local copy of ``url`` in torch's hub cache, fetched where it is not there yet."""
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    name = url.split('?')[0].rstrip('/').rsplit('/', 1)[-1]
    if name in ('', '.', '..'):
        raise UserError(f'{printable_path(url)} names no file')
    target = folder / name
    if not target.is_file():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(target), progress=False)
        except (OSError, ValueError, HTTPException) as error:  # URLError is an OSError
            raise UserError(
                f'{printable_path(url)} cannot be fetched: {printable(str(error))}'
            ) from error
    return str(target)
