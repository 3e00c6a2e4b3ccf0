"""Generators of random numbers that samplers, data sets and transforms have beside the global ones.

Those of Albumentations are an example: a transform that draws from its own generator repeats itself
in every worker that is started, and goes on from the beginning when a run is resumed.
"""

import functools
import logging
import random
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

Generator = random.Random | np.random.Generator | np.random.RandomState | torch.Generator

_MOST_OBJECTS = 5000
_MOST_ITEMS = 200  # of a container of transforms or data sets; one of samples is longer
_WITHOUT = (str, bytes, int, float, complex, np.ndarray, np.generic, torch.Tensor, type)
_LEAVES = (*_WITHOUT, ModuleType, FunctionType, logging.Logger, logging.Handler)


def own_generators(*roots: Any, without: Any = None) -> list[Generator]:
    """Return the generators that objects hold, in an order that depends on their structure alone.

    Args:
        roots: where the search begins.
        without: an object that is not looked into.
    """
    return [thing for thing in _held(roots, without) if isinstance(thing, Generator)]


def holders(root: Any, attribute: str) -> list[str]:
    """Return the types of objects in ``root`` that have an attribute, each once."""
    having = (thing for thing in _held((root,)) if attribute in getattr(thing, '__dict__', ()))
    return list(dict.fromkeys(type(thing).__name__ for thing in having))


def reseed(generator: Generator, seed: int) -> None:
    """Seed a generator of any kind with a number below 2**64."""
    if isinstance(generator, random.Random):
        generator.seed(seed)
    elif isinstance(generator, np.random.RandomState):
        generator.seed(seed & 0xFFFFFFFF)
    elif isinstance(generator, np.random.Generator):
        bits = generator.bit_generator
        bits.state = type(bits)(seed).state
    else:
        generator.manual_seed(seed)


def _held(roots: tuple[Any, ...], without: Any = None) -> Iterator[Any]:
    """Iterate over objects and what they hold, each once, as far as is sensible."""
    seen = {id(without)}
    waiting = list(reversed(roots))
    while waiting and len(seen) <= _MOST_OBJECTS:
        thing = waiting.pop()
        if thing is None or isinstance(thing, _LEAVES) or id(thing) in seen:
            continue
        seen.add(id(thing))
        yield thing
        waiting.extend(reversed(_parts(thing)))


def _parts(thing: Any) -> list[Any]:
    if isinstance(thing, MethodType):
        return [thing.__self__]
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, Generator):
        return []
    parts = list(getattr(thing, '__dict__', {}).values())
    if isinstance(thing, Mapping) and len(thing) <= _MOST_ITEMS:
        parts += thing.values()
    elif isinstance(thing, list | tuple) and len(thing) <= _MOST_ITEMS:
        parts += thing
    return parts
