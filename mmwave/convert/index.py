"""Which family is a file of?"""

from collections.abc import Collection, Sequence

from . import wavemlp
from .family import Family

FAMILIES: tuple[Family, ...] = (wavemlp.FAMILY,)
"""Every family with a table of rules."""


def identify(names: Collection[str], families: Sequence[Family] = FAMILIES) -> Family:
    """The family that has all its marks among a file's tensor names.

    Raises:
        ValueError: where no family has, or several have; the message says what was looked for.
    """
    known = set(names)
    found = [family for family in families if known.issuperset(family.marks)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f'the file could be of {" or ".join(family.name for family in found)}')
    sought = '; '.join(f'{family.name} ({", ".join(family.marks)})' for family in families)
    some = ', '.join(list(names)[:4])
    ours = any(name.startswith(('backbone.', 'stem.')) for name in names)
    hint = '. Names like these are of files that are converted already' if ours else ''
    raise ValueError(
        f'of no known family: {len(names)} tensors ({some} ...); looked for {sought}{hint}'
    )
