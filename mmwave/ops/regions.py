"""Bands of a map's rows or columns put into channels, on an axis that is a ring.

Shapes: N images, H x W positions, C channels, p rows or columns of a region.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from .graphs import is_dynamic


def to_regions(x: Tensor, dim: int, size: int, shift: int = 0) -> Tensor:
    """Roll a map, cut it into regions and put their rows into channels.

    An axis that is no multiple of ``size`` continues with its own first positions, as often as it
    takes.

    Args:
        x: (N, H, W, C).
        dim: 1 for regions of rows, 2 for regions of columns.
        size: p.
        shift: positions to roll the map forwards by.

    Returns:
        (N, ceil(H / p), W, C * p) for rows; channel c * p + r is channel c of row r of the region.
        In a graph of any size both axes are one, and the next one is of length 1.
    """
    if is_dynamic(x.shape[1], x.shape[2]):
        return torch.stack(rows_of_regions(x, dim, size, shift), -1).flatten(-2)
    if shift:
        x = x.roll(shift, dim)
    length = x.shape[dim]
    whole = -(-length // size) * size
    while x.shape[dim] < whole:
        more = min(whole - x.shape[dim], length)
        x = torch.cat([x, x.narrow(dim, 0, more)], dim)
    regions = x.unflatten(dim, (-1, size))  # type: ignore[no-untyped-call]
    return regions.movedim(dim + 1, -1).flatten(-2)


def from_regions(
    regions: Tensor, dim: int, size: int, shape: tuple[int, int], shift: int = 0
) -> Tensor:
    """Undo :func:`to_regions`; ``shape`` is (H, W)."""
    rows = regions.unflatten(-1, (-1, size))  # type: ignore[no-untyped-call]
    if is_dynamic(*shape):
        return map_of_rows(rows.unbind(-1), dim, shape, shift)
    x = rows.movedim(-1, dim + 1).flatten(dim, dim + 1).narrow(dim, 0, shape[dim - 1])
    return x.roll(-shift, dim) if shift else x


# In a graph of any size no axis is divided or counts regions: the compiler would have to prove that
# a length is a multiple, and specialises the graph where there is a single region.


def rows_of_regions(x: Tensor, dim: int, size: int, shift: int) -> list[Tensor]:
    """Return all first rows of a map's regions, all second ones and so on, for graphs of any size.

    Each is (N, ceil(H / p) * W, 1, C) of a map (N, H, W, C), or with columns alike.
    """
    height, width = x.shape[1:3]
    length = x.shape[dim]
    regions = (length + size - 1) // size
    across = width if dim == 1 else regions
    place = torch.arange((regions * width) if dim == 1 else (height * regions), device=x.device)
    first, second = place // across, place % across
    positions, found = x.flatten(1, 2), []
    for row in range(size):
        if dim == 1:
            index = ((first * size + row) % height - shift) % height * width + second
        else:
            index = first * width + ((second * size + row) % width - shift) % width
        found.append(positions.index_select(1, index).unsqueeze(2))
    return found


def map_of_rows(rows: Sequence[Tensor], dim: int, shape: tuple[int, int], shift: int) -> Tensor:
    """Undo :func:`rows_of_regions`; ``shape`` is (H, W)."""
    height, width = shape
    size, count = len(rows), rows[0].shape[1]
    place = torch.arange(height * width, device=rows[0].device)
    first, second = place // width, place % width
    if dim == 1:
        first = (first + shift) % height
        index = first % size * count + first // size * width + second
    else:
        second = (second + shift) % width
        regions = (width + size - 1) // size
        index = second % size * count + first * regions + second // size
    found = torch.cat(list(rows), 1).squeeze(2).index_select(1, index)
    return found.unflatten(1, shape)  # type: ignore[no-untyped-call]
