"""Find the families' files, and the family and release of a published file."""

import re
from collections.abc import Collection, Sequence
from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from mmwave.errors import UserError, printable

from .family import Family, Release
from .readers import Framework

_OURS = re.compile(r'(?:backbone\.)?stem\.(?!proj\.).*')  # timm's have stem.proj


@cache
def families() -> tuple[Family, ...]:
    """Return the ``FAMILY`` of every file of this package that defines one."""
    package = import_module(__package__)
    modules = (
        import_module(f'{__package__}.{found.name}') for found in iter_modules(package.__path__)
    )
    return tuple(module.FAMILY for module in modules if hasattr(module, 'FAMILY'))


def identify(
    names: Collection[str], framework: Framework, known: Sequence[Family] | None = None
) -> tuple[Family, Release]:
    """Return the family and its release whose marks are all among a file's tensor names.

    Args:
        names: of the file's tensors.
        framework: what wrote the file.
        known: families to look for; None: all :func:`families`.

    Raises:
        UserError: where no release fits, or several do, or none of this framework; the message
            lists the marks of all.
    """
    known = families() if known is None else known
    given = set(names)
    marked = [(f, r) for f in known for r in f.releases if given.issuperset(r.marks)]
    found = [(family, release) for family, release in marked if release.framework == framework]
    if len(found) == 1:
        return found[0]
    if found:
        could = ' or '.join(f'{family.name} ({release.origin})' for family, release in found)
        raise UserError(f'the file could be of {could}')
    if marked:
        family = marked[0][0]
        frameworks = dict.fromkeys(release.framework for release in family.releases)
        raise UserError(
            f'a {framework} file with the names of {family.name}, which is known from '
            f'{", ".join(frameworks)}'
        )
    sought = '; '.join(f'{family.name} {_marks(family)}' for family in known)
    some = ', '.join(map(printable, list(names)[:4]))
    ours = any(map(_OURS.fullmatch, names))
    hint = '. Names like these are of files that are converted already' if ours else ''
    raise UserError(
        f'of no known family: {len(names)} tensors ({some} ...); looked for {sought}{hint}'
    )


def _marks(family: Family) -> str:
    sets = dict.fromkeys(release.marks for release in family.releases)
    return ' or '.join(f'({", ".join(marks)})' for marks in sets)
