"""Test data of every family, a file each, found by looking into this folder."""

import importlib
import pkgutil
import random

from tests.families.data import FamilyData

FAMILIES: dict[str, FamilyData] = {}
"""By the name of the family's class. A plugin of pytest's may add to it before tests are found."""


def _find() -> None:
    for module in pkgutil.iter_modules(__path__):
        data = getattr(importlib.import_module(f'{__name__}.{module.name}'), 'FAMILY', None)
        if data is not None:
            FAMILIES[data.name] = data


_find()
SMALLEST = {name: family.smallest for name, family in FAMILIES.items()}
TINY = {name: family.tiny for name, family in FAMILIES.items()}
QUICK_LEAVES = {leaf for family in FAMILIES.values() for leaf in family.quick_leaves}


def drawn(name: str, draw: random.Random) -> tuple[dict, dict]:
    """Fields of an arch of a family, and further arguments, whatever it allows."""
    family = FAMILIES[name]
    arch, options = family.drawn(draw), dict(family.options(draw))
    if 'depths' not in arch:
        arch['depths'] = tuple(draw.randint(1, 2) for _ in range(4))
    if family.grid_modes:
        options['grid_mode'] = draw.choice(family.grid_modes)
    return arch, options
