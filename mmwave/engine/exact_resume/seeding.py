"""The generators of random numbers, seeded by a position in the run."""

import hashlib
import random
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import torch

from .own_generators import Generator, reseed

_pack = struct.Struct('<7q').pack


class Purpose(IntEnum):
    """What random numbers are drawn for."""

    ORDER = 0
    SAMPLE = 1
    STEP = 2
    VALIDATION = 3


class Origin(NamedTuple):
    """What all positions of a process in a run have in common."""

    seed: int
    """Of the run, the same in every process."""
    rank: int
    """Of the process."""


def seed_generators(
    origin: Origin,
    purpose: Purpose,
    *position: int,
    own: Iterable[Generator] = (),
    device: torch.device | None = None,
) -> None:
    """Seed Python's, NumPy's and PyTorch's global generators.

    It takes microseconds: ``torch.manual_seed`` would ask for every kind of device.

    Args:
        origin: the run and the process.
        purpose: what the numbers are for.
        position: up to four numbers.
        own: other generators that are drawn from.
        device: whose default generator is seeded as well, where it is another than the CPU's.
    """
    key = _pack(*origin, purpose, *position, *[0] * (4 - len(position)))
    digest = hashlib.blake2b(key, digest_size=24).digest()
    for_python, for_torch, for_own = struct.unpack('<QqQ', digest)
    random.seed(for_python)
    np.random.seed(for_python & 0xFFFFFFFF)
    torch.default_generator.manual_seed(for_torch)
    if device is not None and device.type != 'cpu':
        _seed_device(device, for_torch)
    for index, generator in enumerate(own):
        reseed(generator, (for_own + index) % 2**64)


def _seed_device(device: torch.device, seed: int) -> None:
    """Seed the default generator of one device; no other is used by a process."""
    if device.type == 'cuda':
        index = torch.cuda.current_device() if device.index is None else device.index
        torch.cuda.default_generators[index].manual_seed(seed)
    elif hasattr(module := torch.get_device_module(device), 'manual_seed'):
        module.manual_seed(seed)
