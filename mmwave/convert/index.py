"""Which family is a file of, and whose release of it?"""

import re
from collections.abc import Collection, Sequence

from mmwave.errors import UserError, printable

from . import eamlp, gmlp, mlp_mixer, posmlp, repmlpnet, resmlp, vip, wavemlp
from .family import Family, Release
from .readers import Framework

FAMILIES: tuple[Family, ...] = (
    wavemlp.FAMILY,
    repmlpnet.FAMILY,
    posmlp.FAMILY,
    vip.FAMILY,
    gmlp.FAMILY,
    resmlp.FAMILY,
    mlp_mixer.FAMILY,
    eamlp.FAMILY,
)
"""Every family with a table of rules."""

_OURS = re.compile(r'(?:backbone\.)?stem\.(?!proj\.).*')  # timm's have stem.proj


def identify(
    names: Collection[str], framework: Framework, families: Sequence[Family] = FAMILIES
) -> tuple[Family, Release]:
    """The family and its release that has all its marks among a file's tensor names.

    Raises:
        UserError: where none has, or several have, or none of this framework; the message says
            what was looked for.
    """
    known = set(names)
    marked = [(f, r) for f in families for r in f.releases if known.issuperset(r.marks)]
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
    sought = '; '.join(f'{family.name} {_marks(family)}' for family in families)
    some = ', '.join(map(printable, list(names)[:4]))
    ours = any(map(_OURS.fullmatch, names))
    hint = '. Names like these are of files that are converted already' if ours else ''
    raise UserError(
        f'of no known family: {len(names)} tensors ({some} ...); looked for {sought}{hint}'
    )


def _marks(family: Family) -> str:
    sets = dict.fromkeys(release.marks for release in family.releases)
    return ' or '.join(f'({", ".join(marks)})' for marks in sets)
