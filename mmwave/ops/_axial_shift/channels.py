"""Offsets of channels as few slices of channels."""

from collections.abc import Sequence
from itertools import groupby

MAX_SLICES = 16
"""Number of slices from which the definition is as fast, and of the longest period looked for."""
Slice = tuple[int, int, int, int]
"""First channel, the one behind the last, step between channels, and their offset."""


def slices_of(offsets: Sequence[int]) -> list[Slice]:
    """Return the fewest slices of channels with one offset each: runs, or strides of a period."""
    runs: list[Slice] = []
    start = 0
    for offset, group in groupby(offsets):
        stop = start + len(list(group))
        runs.append((start, stop, 1, offset))
        start = stop
    for period in range(1, min(len(runs), MAX_SLICES)):
        if all(a == b for a, b in zip(offsets, offsets[period:], strict=False)):
            return [(k, len(offsets), period, offsets[k]) for k in range(period)]
    return runs
