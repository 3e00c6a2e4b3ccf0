"""``configs/<family>/metafile.yml``: what cannot be computed about the configs, with its sources.

The files follow OpenMMLab's layout (``Collections`` and ``Models``) without the fields that are
computed here. ``Measured By`` and ``Source`` of a result, and ``Published`` for figures as a
release printed them, are additions.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmwave.errors import UserError

from .names import LeafName

MEASURERS = ('paper', 'release', 'published weights evaluated here', 'trained here')
_MODEL_KEYS = {'Name', 'In Collection', 'Config', 'Metadata', 'Results', 'Converted From'}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a figure was read: a name and, where there is one, an address."""

    name: str
    url: str = ''


@dataclass(frozen=True, kw_only=True)
class Result:
    """Figures of one measurement.

    Attributes:
        metrics: name -> value, in per cent.
        measured_by: one of :data:`MEASURERS`.
        source: where the figures were read.
    """

    metrics: Mapping[str, float]
    measured_by: str
    source: Source | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model of a metafile.

    Attributes:
        name: the leaf's name without ``.py``.
        config: the leaf.
        leaf: the fields of its name.
        published: ``'Parameters'`` and ``'MACs'`` as the release printed them, e.g. ``'17M'``; may
            be empty.
        results: none where nobody measured anything that can be cited.
    """

    name: str
    config: Path
    leaf: LeafName
    published: Mapping[str, str]
    results: tuple[Result, ...]


def read_metafiles(root: Path) -> tuple[Entry, ...]:
    """The models of every ``configs/<family>/metafile.yml`` below ``root``.

    Raises:
        UserError: where there is none, one does not fit, or one does not list exactly the leaves
            beside it.
    """
    paths = sorted(root.glob('configs/*/metafile.yml'))
    if not paths:
        raise UserError(f'no metafile.yml in the folders of {root / "configs"}')
    entries: list[Entry] = []
    for path in paths:
        found = read_metafile(path, root)
        _compare_with_disk(path, {entry.config for entry in found})
        entries += found
    return tuple(entries)


def read_metafile(path: Path, root: Path) -> tuple[Entry, ...]:
    """The models of one metafile; its ``Config`` paths start at ``root``.

    Raises:
        UserError: where a key is missing, unknown or of a value that is not accepted.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        collections = {collection['Name'] for collection in content['Collections']}
        entries = tuple(_entry(model, collections, path, root) for model in content['Models'])
    except KeyError as error:
        raise UserError(f'{path}: key {error} is missing') from error
    except (TypeError, AttributeError, yaml.YAMLError) as error:
        raise UserError(f'{path} is not laid out as a metafile: {error}') from error
    _check_unique(path, [entry.name for entry in entries])
    return entries


def _entry(model: Mapping[str, Any], collections: Iterable[str], path: Path, root: Path) -> Entry:
    name = model['Name']
    unknown = sorted(set(model) - _MODEL_KEYS)
    if unknown:
        raise UserError(
            f'{path}: {name} has unknown keys {unknown}, accepted are {sorted(_MODEL_KEYS)}'
        )
    if model['In Collection'] not in collections:
        raise UserError(
            f'{path}: {name} is of collection {model["In Collection"]!r}, '
            f'the file defines {", ".join(sorted(collections))}'
        )
    config = root / model['Config']
    if config.stem != name:
        raise UserError(f'{path}: {name} names {model["Config"]}, whose file has another name')
    published = model.get('Metadata', {}).get('Published', {})
    return Entry(
        name=name,
        config=config,
        leaf=LeafName.parse(name),
        published={key: str(value) for key, value in published.items()},
        results=tuple(_result(result, name, path) for result in model.get('Results', ())),
    )


def _result(result: Mapping[str, Any], name: str, path: Path) -> Result:
    measured_by = result['Measured By']
    if measured_by not in MEASURERS:
        raise UserError(
            f'{path}: {name} has a result measured by {measured_by!r}: '
            f'accepted are {", ".join(MEASURERS)}'
        )
    source = result.get('Source')
    if source is None and measured_by in ('paper', 'release'):
        raise UserError(f'{path}: {name} has a result of the {measured_by} without a Source')
    return Result(
        metrics={metric: float(value) for metric, value in result['Metrics'].items()},
        measured_by=measured_by,
        source=Source(name=source['Name'], url=source.get('URL', '')) if source else None,
    )


def _check_unique(path: Path, names: list[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f'{path} lists twice: {", ".join(twice)}')


def _compare_with_disk(path: Path, listed: set[Path]) -> None:
    leaves = set(path.parent.glob('*.py'))
    missing = sorted(leaf.name for leaf in leaves - listed)
    if missing:
        raise UserError(f'{path} does not list {", ".join(missing)}')
    gone = sorted(str(leaf) for leaf in listed - leaves)
    if gone:
        raise UserError(f'{path} lists what is not beside it: {", ".join(gone)}')
