"""Time several callables against each other, and name the machine."""

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

Name = TypeVar('Name', bound=Hashable)

ALLOCATOR = ('THP_MEM_ALLOC_ENABLE', 'MALLOC_MMAP_THRESHOLD_', 'MALLOC_TRIM_THRESHOLD_')
"""Environment variables that change how long the allocation of a large tensor takes."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one call, per round.

    Attributes:
        wall: wall-clock time.
        cpu: processor time of all threads of this process.
    """

    wall: tuple[float, ...]
    cpu: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median of ``wall``."""
        return statistics.median(self.wall)

    @property
    def iqr(self) -> float:
        """Interquartile range of ``wall``."""
        low, _, high = statistics.quantiles(self.wall, n=4, method='inclusive')
        return high - low

    @property
    def cpu_median(self) -> float:
        """Median of ``cpu``."""
        return statistics.median(self.cpu)


@dataclass(frozen=True)
class Ratio:
    """Speed-up of one callable over another: median and quartiles of the rounds' ratios.

    Both calls of a round see the same load of the machine, so their ratio varies less than either.
    """

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, slow: tuple[float, ...], fast: tuple[float, ...]) -> 'Ratio':
        """Return the quartiles of ``slow / fast``, round by round."""
        ratios = [s / f for s, f in zip(slow, fast, strict=True)]
        return cls(*statistics.quantiles(ratios, n=4, method='inclusive'))


def alternate(
    candidates: Mapping[Name, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 1,
    device: torch.device | str = 'cpu',
) -> dict[Name, Timing]:
    """Time every candidate in every round, in reversed order in every second one.

    Args:
        candidates: name -> callable; its return value is freed inside the measured time.
        repeats: rounds that are measured.
        warmup: rounds before them that are not.
        device: where the work runs; a CUDA device is synchronised before and after every call.
    """
    cuda = torch.device(device).type == 'cuda'

    def now() -> tuple[float, float]:
        if cuda:
            torch.cuda.synchronize(device)
        return time.perf_counter(), time.process_time()

    seconds: dict[Name, list[tuple[float, float]]] = {name: [] for name in candidates}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for turn in range(warmup + repeats):
            names = list(candidates)
            for name in names if turn % 2 == 0 else reversed(names):
                wall, cpu = now()
                candidates[name]()
                ended = now()
                if turn >= warmup:
                    seconds[name].append((ended[0] - wall, ended[1] - cpu))
            # The youngest generation only: garbage of this round.
            gc.collect(0)
    finally:
        if collecting:
            gc.enable()
    return {
        name: Timing(tuple(w for w, _ in rounds), tuple(c for _, c in rounds))
        for name, rounds in seconds.items()
    }


def machine(device: torch.device | str = 'cpu') -> str:
    """Return one line: processor, cores, threads, torch, GPU, allocator settings if any."""
    parts = [
        _processor(),
        f'{len(os.sched_getaffinity(0))} cores',
        f'{torch.get_num_threads()} threads',
        f'torch {torch.__version__}',
    ]
    if torch.device(device).type == 'cuda':
        parts.append(torch.cuda.get_device_name(device))
    parts += [f'{name}={os.environ[name]}' for name in ALLOCATOR if name in os.environ]
    return ', '.join(parts)


def _processor(listing: Path = Path('/proc/cpuinfo')) -> str:
    """Return the processor's name, with family and model if listed: the name may be cut off."""
    fields: dict[str, str] = {}
    if listing.exists():
        for line in listing.read_text().splitlines():
            name, _, value = line.partition(':')
            fields.setdefault(name.strip(), value.strip())  # the first core's
    if 'model name' not in fields:
        return platform.processor() or platform.machine()
    numbers = [
        f'{n} {fields[key]}'
        for n, key in (('family', 'cpu family'), ('model', 'model'))
        if key in fields
    ]
    return fields['model name'] + (f' ({" ".join(numbers)})' if numbers else '')
