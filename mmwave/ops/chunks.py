"""Work on some positions at a time, where a CPU's cache holds the intermediate results."""

from collections.abc import Callable

from torch import Tensor

CPU_CHUNK = 8192
"""Positions at a time on a CPU."""


def add_in_parts(x: Tensor, source: Tensor, branch: Callable[[Tensor], Tensor]) -> Tensor:
    """Add ``branch(source)`` to ``x`` in place, (P, ...) both, and return ``x``.

    On a CPU, process :data:`CPU_CHUNK` positions at a time: allocating memory for the intermediate
    results of large maps costs more than the products.
    """
    step = CPU_CHUNK if x.device.type == 'cpu' else max(1, len(x))
    parts = (t.split(step) for t in (x, source))  # type: ignore[no-untyped-call]
    for part, rows in zip(*parts, strict=True):
        part.add_(branch(rows))
    return x
