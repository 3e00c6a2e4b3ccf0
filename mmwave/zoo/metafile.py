"""``configs/<family>/metafile.yml``: what cannot be computed about the configs, with its sources.

The files follow OpenMMLab's layout (``Collections`` and ``Models``) without the fields that are
computed here. Additions are ``Measured By`` and ``Source`` of a result, ``Published`` for
parameters and MACs as they were printed, and ``Note``, which says why those are not what is counted
here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mmwave.errors import UserError

from .names import LeafName

MEASURERS = (
    'paper',
    'release',
    'published weights evaluated elsewhere',
    'published weights evaluated here',
    'trained here',
)
_MODEL_KEYS = {'Name', 'In Collection', 'Config', 'Metadata', 'Results', 'Converted From'}
_METADATA_KEYS = {'Published', 'Note'}
_PUBLISHED_KEYS = {'Parameters', 'MACs', 'Source'}


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
class Collection:
    """A family.

    Attributes:
        name: as its paper writes it.
        paper: the paper's title and address; None where the file names none.
    """

    name: str
    paper: Source | None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A model of a metafile.

    Attributes:
        name: the leaf's name without ``.py``.
        config: the leaf.
        leaf: the fields of its name.
        collection: its family.
        published: ``'Parameters'`` and ``'MACs'`` as they were printed, e.g. ``'17M'``; may be
            empty.
        published_by: who printed them; None for the authors' release.
        note: why they differ from what is counted here; mostly empty.
        results: none where nobody measured anything that can be cited.
    """

    name: str
    config: Path
    leaf: LeafName
    collection: Collection
    published: Mapping[str, str]
    published_by: Source | None
    note: str
    results: tuple[Result, ...]


def read_metafiles(root: Path) -> tuple[Entry, ...]:
    """Return the models of every ``configs/<family>/metafile.yml`` below ``root``.

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
    """Return the models of one metafile; its ``Config`` paths start at ``root``.

    Raises:
        UserError: where a key is missing, unknown or of a value that is not accepted.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
        collections = {c['Name']: _collection(c) for c in content['Collections']}
        entries = tuple(_entry(model, collections, path, root) for model in content['Models'])
    except KeyError as error:
        raise UserError(f'{path}: key {error} is missing') from error
    except UserError:
        raise
    except (AttributeError, TypeError, ValueError, yaml.YAMLError) as error:
        raise UserError(f'{path} does not have the structure of a metafile: {error}') from error
    _check_unique(path, [entry.name for entry in entries])
    return entries


def _collection(collection: Mapping[str, Any]) -> Collection:
    paper = collection.get('Paper')
    return Collection(
        name=collection['Name'],
        paper=Source(name=paper['Title'], url=paper['URL']) if paper else None,
    )


def _entry(
    model: Mapping[str, Any], collections: Mapping[str, Collection], path: Path, root: Path
) -> Entry:
    name = model['Name']
    metadata = model.get('Metadata', {})
    published = metadata.get('Published', {})
    for given, accepted in (
        (model, _MODEL_KEYS),
        (metadata, _METADATA_KEYS),
        (published, _PUBLISHED_KEYS),
    ):
        unknown = sorted(set(given) - accepted)
        if unknown:
            raise UserError(
                f'{path}: {name} has unknown keys {unknown}, accepted are {sorted(accepted)}'
            )
    if model['In Collection'] not in collections:
        raise UserError(
            f'{path}: {name} is of collection {model["In Collection"]!r}, '
            f'the file defines {", ".join(sorted(collections))}'
        )
    config = root / model['Config']
    if config.stem != name:
        raise UserError(f'{path}: {name} names {model["Config"]}, whose file has another name')
    return Entry(
        name=name,
        config=config,
        leaf=LeafName.parse(name),
        collection=collections[model['In Collection']],
        published={key: str(value) for key, value in published.items() if key != 'Source'},
        published_by=_source(published.get('Source')),
        note=metadata.get('Note', ''),
        results=tuple(_result(result, name, path) for result in model.get('Results', ())),
    )


def _result(result: Mapping[str, Any], name: str, path: Path) -> Result:
    measured_by = result['Measured By']
    if measured_by not in MEASURERS:
        raise UserError(
            f'{path}: {name} has a result measured by {measured_by!r}: '
            f'accepted are {", ".join(MEASURERS)}'
        )
    source = _source(result.get('Source'))
    if source is None and not measured_by.endswith(' here'):
        raise UserError(f'{path}: {name} has a result measured by {measured_by} without a Source')
    return Result(
        metrics={metric: float(value) for metric, value in result['Metrics'].items()},
        measured_by=measured_by,
        source=source,
    )


def _source(source: Mapping[str, str] | None) -> Source | None:
    return Source(name=source['Name'], url=source.get('URL', '')) if source else None


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
