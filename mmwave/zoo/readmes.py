"""Render the tables of the READMEs between their marker comments, and the list of metafiles.

A README requests a table with ``<!-- zoo:begin NAME -->`` followed by ``<!-- zoo:end NAME -->``;
:meth:`Zoo.names` lists the names.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from mmwave.errors import UserError

from .tables import Zoo

INDEX = 'model-index.yml'
_MARKER = re.compile(r'<!-- zoo:(begin|end) (\S+) -->')


def _readmes(root: Path) -> Iterable[Path]:
    return [
        root / 'README.md',
        *sorted(root.glob('configs/README.md')),
        *sorted(root.glob('configs/*/README.md')),
    ]


def _rendered(zoo: Zoo, readme: Path) -> tuple[str, list[str]]:
    """Return the README with fresh tables, and the names of the tables that were stale."""
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


def model_index(root: Path) -> str:
    """Return the text of ``model-index.yml``, which lists the metafiles of all families."""
    paths = sorted(
        path.relative_to(root).as_posix() for path in root.glob('configs/*/metafile.yml')
    )
    return '\n'.join(['Import:', *(f'  - {path}' for path in paths), ''])


def _stale_index(root: Path) -> Path | None:
    """Return the path of the list of metafiles where there is one that is not current."""
    path = root / INDEX
    return (
        path if path.is_file() and path.read_text(encoding='utf-8') != model_index(root) else None
    )


def stale_tables(zoo: Zoo) -> list[str]:
    """Return the tables that differ from what would be rendered now, as ``README: NAME``.

    ``model-index.yml`` is one of them.

    Raises:
        UserError: where markers are not paired or name a table that does not exist.
    """
    return [
        f'{readme.relative_to(zoo.root)}: {name}'
        for readme in _readmes(zoo.root)
        for name in _rendered(zoo, readme)[1]
    ] + [INDEX] * bool(_stale_index(zoo.root))


def update_readmes(zoo: Zoo) -> list[str]:
    """Rewrite the stale tables of every README; return them as :func:`stale_tables` does.

    Raises:
        UserError: as :func:`stale_tables`; then no README was changed.
    """
    rendered = [(readme, *_rendered(zoo, readme)) for readme in _readmes(zoo.root)]
    for readme, text, stale in rendered:
        if stale:
            readme.write_text(text, encoding='utf-8')
    index = _stale_index(zoo.root)
    if index:
        index.write_text(model_index(zoo.root), encoding='utf-8')
    return [
        f'{readme.relative_to(zoo.root)}: {name}' for readme, _, stale in rendered for name in stale
    ] + [INDEX] * bool(index)
