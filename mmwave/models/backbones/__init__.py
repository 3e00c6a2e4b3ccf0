"""One file a paper. Every family in this folder is imported, and so registered."""

import importlib
import pkgutil
from typing import Any

from .base import MLPBackbone


def _families() -> dict[str, type[MLPBackbone]]:
    """The families of the modules in this folder, by the names of their classes."""
    found = {}
    for module in pkgutil.iter_modules(__path__):
        names = vars(importlib.import_module(f'{__name__}.{module.name}'))
        found |= {
            name: value
            for name, value in names.items()
            if isinstance(value, type) and issubclass(value, MLPBackbone) and 'archs' in vars(value)
        }
    return found


FAMILIES = _families()
"""Every family by the name of its class."""

globals().update(FAMILIES)
__all__ = ['FAMILIES', 'MLPBackbone', *FAMILIES]


def __getattr__(name: str) -> Any:  # for type checkers, which do not see what is found
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
