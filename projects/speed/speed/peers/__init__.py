"""What our backbones are measured against: published code and libraries, per family.

Every module of this folder may declare ``PEERS``, a tuple of :class:`Peer`, and ``OTHERS``, a
mapping (backbone, library) -> :class:`Other`. A family without a peer is measured alone.
"""

from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType

from .base import Other, Peer, family_of
from .libraries import CONTENDERS


def _find() -> dict[str, Peer]:
    modules = [import_module(f'{__name__}.{module.name}') for module in iter_modules(__path__)]
    others: dict[str, dict[str, Other]] = {}
    for module in modules:
        for (backbone, library), other in getattr(module, 'OTHERS', {}).items():
            others.setdefault(family_of(backbone), {})[library] = other
    peers: dict[str, Peer] = {}
    for peer in (peer for module in modules for peer in getattr(module, 'PEERS', ())):
        family = family_of(peer.backbone)
        if family in peers:
            raise ValueError(f'two peers of {family}')
        peers[family] = replace(peer, others=others.get(family, {}))
    return peers


PEERS: Mapping[str, Peer] = MappingProxyType(_find())
"""Family -> its peer, in the order of the modules' names."""

__all__ = ['CONTENDERS', 'PEERS', 'Other', 'Peer', 'family_of']
