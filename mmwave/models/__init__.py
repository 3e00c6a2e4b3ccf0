"""Backbones, necks and the layers they are made of."""

from typing import Any

from .backbones import FAMILIES, MLPBackbone
from .necks import SimpleFeaturePyramid

globals().update(FAMILIES)
__all__ = ['FAMILIES', 'MLPBackbone', 'SimpleFeaturePyramid', *FAMILIES]


def __getattr__(name: str) -> Any:  # for type checkers, which do not see what is found
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
