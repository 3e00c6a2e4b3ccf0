"""How blocks see maps that are cut into windows."""

import pytest
import torch

from mmwave.models.layers.windows import MapGrid, WindowGrid, mask_of
from mmwave.ops.windows import counts, cut, join, resize
from tests.contracts import images, relative_error


@pytest.mark.parametrize('size', [(6, 8), (5, 7), (2, 9)])
def test_both_grids_see_the_same(size):
    window, x = (3, 4), images(2, 5, *size).double()
    shape = counts(size, window)
    by_map, mask = MapGrid(size, window, shape), mask_of(size, window, shape, x)
    padded = any(s % w for s, w in zip(size, window, strict=True))
    by_window = WindowGrid(size, window, shape, mask if padded else None)
    # What a norm with a shift leaves outside the map must not be seen.
    inside = cut(x, window)
    dirty = inside + (1 - mask).repeat(2, 1, 1, 1)
    assert torch.equal(by_map.windows(x), by_window.windows(dirty))
    windows = by_map.windows(x)
    for grid in (by_map, by_window):
        assert relative_error(grid.mean(windows), x.mean(dim=(2, 3))) < 1e-14
    factors = images(2, 5, seed=1).double()
    ours = by_window.from_windows(windows) * by_window.spread(factors)
    assert torch.equal(
        by_window.to_map(ours), by_map.from_windows(windows) * by_map.spread(factors)
    )
    assert torch.equal(by_map.to_map(x), x)


@pytest.mark.parametrize('size', [(6, 8), (5, 7)])
def test_even_maps_are_zero_outside(size):
    x, window = images(2, 5, *size), (4, 4)
    even = tuple(side + side % 2 for side in size)
    wanted = resize(x, even)
    shape = counts(size, window)
    assert torch.equal(MapGrid(size, window, shape).pad_even(x), wanted)
    mask = mask_of(size, window, shape, x)
    dirty = cut(x, window) + (1 - mask).repeat(2, 1, 1, 1)
    assert torch.equal(join(WindowGrid(size, window, shape, mask).pad_even(dirty), even), wanted)
