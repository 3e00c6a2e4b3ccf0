"""The tables of the READMEs: of configs by data set, and of variants by what they do with sizes."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from mmwave.errors import UserError
from mmwave.inspect.windows import GridFacts, Size

from .complexity import Complexity, complexity
from .metafile import Entry, Result, Source, read_metafiles
from .published import Deviation, deviation
from .sizes import IMAGES, ImageCost, grid_facts, image_costs

_METHODS = {
    'retinanet': 'RetinaNet',
    'mask-rcnn': 'Mask R-CNN',
    'cascade-mask-rcnn': 'Cascade Mask R-CNN',
    'sem-fpn': 'Semantic FPN',
    'upernet': 'UPerNet',
}
_NONE = '–'

Columns = dict[str, list[str]]
"""Header -> cells of a table."""


class Zoo:
    """The configs below a repository's root and their tables.

    Tables are called ``FAMILY/WHAT``, and ``all/WHAT`` for every family. WHAT is a data set, for a
    row per config and result, or one of

    - ``families``: a row per family (only of all),
    - ``variants``: a row per variant that has a classifier: what ties it to a size, and its cost
      beside the published one,
    - ``images``: what larger images cost, a row per trained grid.

    Args:
        root: the folder that holds ``configs``.
        count: counts a config at a size; every config is counted once.
        look: returns what ties the backbone of a config to a size.
        cost: counts the backbone of a config on larger images, and accepts its trained size.

    Raises:
        UserError: see :func:`mmwave.zoo.read_metafiles`.
    """

    def __init__(
        self,
        root: Path,
        count: Callable[[Path, Size], Complexity] = complexity,
        look: Callable[[Path], GridFacts] = grid_facts,
        cost: Callable[[Path, Size], Mapping[str, Mapping[Size, ImageCost]]] = image_costs,
    ) -> None:
        self.root = root
        self.entries = read_metafiles(root)
        self._count, self._look, self._cost = count, look, cost
        self._counted: dict[Path, Complexity] = {}
        self._facts: dict[Path, GridFacts] = {}

    def complexity(self, entry: Entry) -> Complexity:
        """Return parameters and MACs of ``entry`` at the size that its name states."""
        if entry.config not in self._counted:
            self._counted[entry.config] = self._count(entry.config, entry.leaf.size)
        return self._counted[entry.config]

    def grid_facts(self, entry: Entry) -> GridFacts:
        """Return what ties the backbone of ``entry`` to a size."""
        if entry.config not in self._facts:
            self._facts[entry.config] = self._look(entry.config)
        return self._facts[entry.config]

    def deviations(self, entry: Entry) -> dict[str, Deviation]:
        """Return published figure -> how the computed one differs; see :func:`deviation`.

        Raises:
            UserError: where one has no reason by itself and the entry has no note that says why.
        """
        counted = {'Parameters': 'params', 'MACs': 'macs'}
        found = {
            key: deviation(printed, getattr(self.complexity(entry), counted[key]))
            for key, printed in entry.published.items()
        }
        off = {key: value for key, value in found.items() if value is not None}
        unexplained = {key: value for key, value in off.items() if not value.reason}
        if unexplained and not entry.note:
            figures = ', '.join(_off(key, value) for key, value in unexplained.items())
            raise UserError(
                f'{entry.name}: computed figures are off the published ones ({figures}): '
                "say why under Metadata: Note in the family's metafile.yml"
            )
        return off

    def table(self, name: str, folder: Path) -> str:
        """Return the Markdown table called ``name`` for a README in ``folder``.

        Raises:
            UserError: where there is no such table, the message lists those there are; and where
                a published figure is off without a reason.
        """
        if name not in self.names():
            raise UserError(f'no table {name!r}: there are {", ".join(self.names())}')
        family, _, what = name.partition('/')
        of_family = [e for e in self.entries if family in ('all', e.leaf.family)]
        if what in _BY_SIZE:
            columns = _BY_SIZE[what](self, [e for e in of_family if _is_variant(e)], folder)
        else:
            columns = self._columns([e for e in of_family if e.leaf.data == what], folder)
        return '\n'.join(_lines(columns))

    def names(self) -> list[str]:
        """Return the names of all tables."""
        leaves = [entry.leaf for entry in self.entries]
        names = {f'{family}/{leaf.data}' for leaf in leaves for family in ('all', leaf.family)}
        for family in {e.leaf.family for e in self.entries if _is_variant(e)}:
            names |= {f'{which}/{what}' for what in _BY_SIZE for which in ('all', family)}
            names.remove(f'{family}/families')
        return sorted(names)

    def _columns(self, chosen: Sequence[Entry], folder: Path) -> Columns:
        """Return a row per result of configs of one data set, and one for a config without any."""
        rows: list[tuple[Entry, Result | None]] = [
            (entry, result) for entry in chosen for result in (entry.results or (None,))
        ]
        counts = [self.complexity(entry) for entry, _ in rows]
        counted = {count.counted for count in counts}
        if len(counted) > 1:
            raise UserError(
                f'{chosen[0].leaf.data}: one table cannot hold MACs of '
                f'{" and ".join(sorted(counted))}'
            )
        part = counted.pop()
        sizes = [_size(entry.leaf.size) for entry, _ in rows]
        one_size = f' at {sizes[0]}' if len(set(sizes)) == 1 else ''
        columns = {'config': [_config(entry, folder) for entry, _ in rows]}
        if any(entry.leaf.method for entry in chosen):
            methods = [entry.leaf.method for entry, _ in rows]
            columns['method'] = [_METHODS.get(method, method) for method in methods]
            columns['schedule'] = [entry.leaf.schedule for entry, _ in rows]
        columns['parameters of the model, computed here'] = [
            f'{count.params / 1e6:.2f} M' for count in counts
        ]
        if not one_size:
            columns['image'] = sizes
        columns[f'MACs of the {part}{one_size}, computed here'] = [
            f'{count.macs / 1e9:.2f} G' for count in counts
        ]
        columns |= self._published([entry for entry, _ in rows])
        results = [result for _, result in rows]
        metrics = dict.fromkeys(metric for r in results if r is not None for metric in r.metrics)
        for metric in metrics:
            columns[metric] = [_figure(result, metric) for result in results]
        if metrics:
            columns['measured by'] = [_measurer(result) for result in results]
        return columns

    def _published(self, rows: Sequence[Entry]) -> Columns:
        for entry in rows:
            self.deviations(entry)
        return {
            f'{key}, published': [_printed(entry, key) for entry in rows]
            for key in dict.fromkeys(key for entry in rows for key in entry.published)
        }

    def families(self, variants: Sequence[Entry], folder: Path) -> Columns:
        """Return a row per family."""
        columns: Columns = {
            key: []
            for key in (
                'family',
                'paper',
                'variants',
                'parameters, computed here',
                'strides',
                'pixels of a window',
            )
        }
        for collection in dict.fromkeys(entry.collection for entry in variants):
            own = [entry for entry in variants if entry.collection == collection]
            params = sorted(self.complexity(entry).params for entry in own)
            facts = [self.grid_facts(entry) for entry in own]
            readme = Path(os.path.relpath(own[0].config.parent / 'README.md', folder))
            cells = (
                f'[{collection.name}]({readme.as_posix()})',
                _link(collection.paper),
                ' '.join(f'`{entry.leaf.variant}`' for entry in own),
                ' – '.join(f'{value / 1e6:.1f}' for value in {params[0]: 0, params[-1]: 0}) + ' M',
                ' or '.join(dict.fromkeys(_strides(fact) for fact in facts)),
                ' or '.join(dict.fromkeys(_windows(fact) for fact in facts)),
            )
            for cell, key in zip(cells, columns, strict=True):
                columns[key].append(cell)
        return columns

    def variants(self, variants: Sequence[Entry], folder: Path) -> Columns:
        """Return a row per variant: its grid, and its cost beside the published one."""
        facts = [self.grid_facts(entry) for entry in variants]
        counts = [self.complexity(entry) for entry in variants]
        columns = {
            'variant': [_config(entry, folder) for entry in variants],
            'strides': [_strides(fact) for fact in facts],
            'pixels of a window': [_windows(fact) for fact in facts],
            '`grid_mode`': [
                ' '.join(f'`{mode}`' for mode in fact.modes) or _NONE for fact in facts
            ],
            'image': [_size(entry.leaf.size) for entry in variants],
            'parameters, computed here': [f'{count.params / 1e6:.2f} M' for count in counts],
            'MACs, computed here': [f'{count.macs / 1e9:.2f} G' for count in counts],
            **self._published(variants),
        }
        why = [self._why(entry) for entry in variants]
        return {**columns, 'why they differ': why} if set(why) != {''} else columns

    def _why(self, entry: Entry) -> str:
        off = ', '.join(_off(key, value) for key, value in self.deviations(entry).items())
        return '. '.join(part for part in (off, entry.note) if part)

    def images(self, variants: Sequence[Entry], folder: Path) -> Columns:
        """Return a row per trained grid: what images cost the first variant with it.

        Of every image there is a column of the mode that is the default, and of each other one.
        """
        groups: dict[tuple[str, GridFacts], list[Entry]] = {}
        for entry in variants:
            groups.setdefault((entry.leaf.family, self.grid_facts(entry)), []).append(entry)
        costs = [self._cost(own[0].config, own[0].leaf.size) for own in groups.values()]
        columns: Columns = {
            'counted on': [_config(own[0], folder) for own in groups.values()],
            'same grid': [
                ' '.join(f'`{entry.leaf.variant}`' for entry in own[1:]) or _NONE
                for own in groups.values()
            ],
        }
        for image in IMAGES:
            columns[_size(image)] = [_cost(next(iter(cost.values())), image) for cost in costs]
            for mode in dict.fromkeys(mode for cost in costs for mode in list(cost)[1:]):
                columns[f'{_size(image)}, `{mode}`'] = [
                    _cost(cost[mode], image) if mode in cost else _NONE for cost in costs
                ]
        return columns


_BY_SIZE = {'families': Zoo.families, 'variants': Zoo.variants, 'images': Zoo.images}


def _is_variant(entry: Entry) -> bool:
    """Return whether it is a classifier by the authors' recipe; every variant has one."""
    return entry.leaf.data == 'in1k' and not entry.leaf.recipe


def _lines(columns: Columns) -> Iterator[str]:
    yield '| ' + ' | '.join(columns) + ' |'
    yield '|---' * len(columns) + '|'
    for cells in zip(*columns.values(), strict=True):
        yield '| ' + ' | '.join(cells) + ' |'


def _config(entry: Entry, folder: Path) -> str:
    return f'[{entry.name}]({Path(os.path.relpath(entry.config, folder)).as_posix()})'


def _figure(result: Result | None, metric: str) -> str:
    if result is None or metric not in result.metrics:
        return _NONE
    return f'{result.metrics[metric]:g}'


def _measurer(result: Result | None) -> str:
    if result is None:
        return _NONE
    if result.source is None:
        return result.measured_by
    return f'{result.measured_by} ({_link(result.source)})'


def _link(source: Source | None) -> str:
    if source is None:
        return _NONE
    return f'[{source.name}]({source.url})' if source.url else source.name


def _printed(entry: Entry, key: str) -> str:
    if key not in entry.published:
        return _NONE
    by = f' ({_link(entry.published_by)})' if entry.published_by else ''
    return entry.published[key] + by


def _size(size: Size) -> str:
    return f'{size[0]} × {size[1]}'


def _strides(facts: GridFacts) -> str:
    """Return the one stride that all stages have, or each stage's."""
    return ', '.join(map(str, facts.strides if len(set(facts.strides)) > 1 else facts.strides[:1]))


def _windows(facts: GridFacts) -> str:
    """Return the one size that all stages' windows cover, or each stage's."""
    sizes = [str(h) if h == w else _size((h, w)) for h, w in facts.windows]
    return ', '.join(sizes if len(set(sizes)) > 1 else sizes[:1]) or 'none: any size'


def _off(key: str, value: Deviation) -> str:
    reason = f' ({value.reason})' if value.reason else ''
    return f'{key} {100 * value.relative:+.1f} %{reason}'


def _cost(costs: Mapping[Size, ImageCost], image: Size) -> str:
    return f'{costs[image].factor:.2f} × ({costs[image].macs / 1e9:.1f} G)'
