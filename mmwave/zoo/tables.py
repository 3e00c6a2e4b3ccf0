"""Render the tables of the READMEs between their marker comments.

A README asks for a table with ``<!-- zoo:begin FAMILY/DATA -->`` followed by
``<!-- zoo:end FAMILY/DATA -->``; ``all`` stands for every family.
"""

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from mmwave.errors import UserError

from .complexity import Complexity, complexity
from .metafile import Entry, Result, read_metafiles

_MARKER = re.compile(r'<!-- zoo:(begin|end) (\S+) -->')
_METHODS = {
    'retinanet': 'RetinaNet',
    'mask-rcnn': 'Mask R-CNN',
    'sem-fpn': 'Semantic FPN',
    'upernet': 'UPerNet',
}
_NONE = '–'


class Zoo:
    """The configs below a repository's root and their tables.

    Args:
        root: the folder that holds ``configs``.
        count: counts a config at a size; every config is counted once.

    Raises:
        UserError: see :func:`mmwave.zoo.read_metafiles`.
    """

    def __init__(
        self,
        root: Path,
        count: Callable[[Path, tuple[int, int]], Complexity] = complexity,
    ) -> None:
        self.root = root
        self.entries = read_metafiles(root)
        self._count = count
        self._counted: dict[Path, Complexity] = {}

    def complexity(self, entry: Entry) -> Complexity:
        """Parameters and MACs of ``entry`` at the size that its name tells."""
        if entry.config not in self._counted:
            self._counted[entry.config] = self._count(entry.config, entry.leaf.size)
        return self._counted[entry.config]

    def table(self, name: str, folder: Path) -> str:
        """The Markdown table called ``name`` for a README in ``folder``.

        Raises:
            UserError: where no config is of that family and data set; the message lists the tables
                there are.
        """
        family, _, data = name.partition('/')
        chosen = [
            entry
            for entry in self.entries
            if entry.leaf.data == data and family in ('all', entry.leaf.family)
        ]
        if not chosen:
            raise UserError(f'no table {name!r}: there are {", ".join(self.names())}')
        return '\n'.join(_lines(self._columns(chosen, folder)))

    def names(self) -> list[str]:
        """The names of all tables."""
        leaves = [entry.leaf for entry in self.entries]
        own = {f'{leaf.family}/{leaf.data}' for leaf in leaves}
        return sorted(own | {f'all/{leaf.data}' for leaf in leaves})

    def _columns(self, chosen: Sequence[Entry], folder: Path) -> dict[str, list[str]]:
        """Header -> cells, one row per result, and one for a config without any."""
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
        sizes = [f'{entry.leaf.size[0]} × {entry.leaf.size[1]}' for entry, _ in rows]
        one_size = f' at {sizes[0]}' if len(set(sizes)) == 1 else ''
        columns = {'config': [_link(entry, folder) for entry, _ in rows]}
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
        for key in dict.fromkeys(key for entry in chosen for key in entry.published):
            columns[f'{key} as the release prints them'] = [
                entry.published.get(key, _NONE) for entry, _ in rows
            ]
        results = [result for _, result in rows]
        metrics = dict.fromkeys(metric for r in results if r is not None for metric in r.metrics)
        for metric in metrics:
            columns[metric] = [_figure(result, metric) for result in results]
        if metrics:
            columns['measured by'] = [_measurer(result) for result in results]
        return columns


def _lines(columns: dict[str, list[str]]) -> Iterator[str]:
    yield '| ' + ' | '.join(columns) + ' |'
    yield '|---' * len(columns) + '|'
    for cells in zip(*columns.values(), strict=True):
        yield '| ' + ' | '.join(cells) + ' |'


def _link(entry: Entry, folder: Path) -> str:
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
    name, url = result.source.name, result.source.url
    return f'{result.measured_by} ({f"[{name}]({url})" if url else name})'


def _readmes(root: Path) -> Iterable[Path]:
    return [root / 'README.md', *sorted(root.glob('configs/*/README.md'))]


def _rendered(zoo: Zoo, readme: Path) -> tuple[str, list[str]]:
    """The README with fresh tables, and the names of the tables that were stale."""
    text = readme.read_text(encoding='utf-8')
    parts, stale, position = [], [], 0
    markers = list(_MARKER.finditer(text))
    pairs = list(zip(markers[::2], markers[1::2], strict=False))
    if len(markers) % 2 or any(
        (begin[1], end[1]) != ('begin', 'end') or begin[2] != end[2] for begin, end in pairs
    ):
        found = ', '.join(f'{marker[1]} {marker[2]}' for marker in markers)
        raise UserError(f'{readme}: zoo markers do not come in pairs of begin and end: {found}')
    for begin, end in pairs:
        fresh = f'\n{zoo.table(begin[2], readme.parent)}\n'
        if text[begin.end() : end.start()] != fresh:
            stale.append(begin[2])
        parts += [text[position : begin.end()], fresh]
        position = end.start()
    return ''.join([*parts, text[position:]]), stale


def stale_tables(zoo: Zoo) -> list[str]:
    """The tables that differ from what would be rendered now, as ``README: NAME``.

    Raises:
        UserError: where markers are not paired or ask for a table that is not there.
    """
    return [
        f'{readme.relative_to(zoo.root)}: {name}'
        for readme in _readmes(zoo.root)
        for name in _rendered(zoo, readme)[1]
    ]


def update_readmes(zoo: Zoo) -> list[str]:
    """Rewrite the stale tables of every README; return them as :func:`stale_tables` does.

    Raises:
        UserError: as :func:`stale_tables`; then no README was changed.
    """
    rendered = [(readme, *_rendered(zoo, readme)) for readme in _readmes(zoo.root)]
    for readme, text, stale in rendered:
        if stale:
            readme.write_text(text, encoding='utf-8')
    return [
        f'{readme.relative_to(zoo.root)}: {name}' for readme, _, stale in rendered for name in stale
    ]
