"""Cutting maps into windows and joining them again."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwave.models.layers.windows import (
    MapGrid,
    WindowGrid,
    channels_first,
    convolved,
    counts,
    cut,
    join,
    mask_of,
    resize,
    strided_padding,
)
from tests.contracts import images, relative_error


@pytest.mark.parametrize('size', [(6, 8), (3, 4), (5, 9), (1, 1), (7, 2)])
def test_windows_lie_row_by_row_and_join_to_the_map(size):
    x, (h, w) = images(2, 3, *size), (3, 4)
    windows = cut(x, (h, w))
    rows, columns = -(-size[0] // h), -(-size[1] // w)
    assert windows.shape == (2 * rows * columns, 3, h, w)
    for n in range(2):
        for i in range(rows):
            for j in range(columns):
                part = x[n, :, i * h : (i + 1) * h, j * w : (j + 1) * w]
                window = windows[(n * rows + i) * columns + j]
                assert torch.equal(window[:, : part.shape[1], : part.shape[2]], part)
                assert window.count_nonzero() == part.count_nonzero()
    assert torch.equal(join(windows, size), x)


def test_sizes_that_fit_are_not_copied():
    x = images(1, 2, 3, 4)
    assert resize(x, (3, 4)) is x
    assert cut(x, (3, 4)).data_ptr() == x.data_ptr()


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
    ours = by_window.back(windows) * by_window.spread(factors)
    assert torch.equal(by_window.whole(ours), by_map.back(windows) * by_map.spread(factors))
    assert torch.equal(by_map.whole(x), x)


@pytest.mark.parametrize('size', [(6, 8), (5, 7)])
def test_even_maps_are_zero_outside(size):
    x, window = images(2, 5, *size), (4, 4)
    even = tuple(side + side % 2 for side in size)
    wanted = resize(x, even)
    shape = counts(size, window)
    assert torch.equal(MapGrid(size, window, shape).even(x), wanted)
    mask = mask_of(size, window, shape, x)
    dirty = cut(x, window) + (1 - mask).repeat(2, 1, 1, 1)
    assert torch.equal(join(WindowGrid(size, window, shape, mask).even(dirty), even), wanted)


@pytest.mark.parametrize('size', [(32, 33), (57, 40), (4, 7)])
@pytest.mark.parametrize(('kernel', 'stride', 'padding'), [(7, 4, 2), (3, 2, 1), (2, 2, 0)])
def test_padding_in_front_is_that_of_the_convolution(size, kernel, stride, padding):
    conv = nn.Conv2d(2, 3, kernel, stride, padding)
    pads = strided_padding(size, conv.kernel_size, conv.stride, conv.padding)
    x = F.pad(images(1, 2, *size), pads)
    assert all((side - kernel) % stride == 0 for side in x.shape[2:])  # nothing is left over
    got = F.conv2d(x, conv.weight, conv.bias, conv.stride)
    assert relative_error(got, conv(images(1, 2, *size))) < 1e-6


def test_graphs_for_any_size_pad_in_front_and_give_copies():
    conv, ran = nn.Conv2d(2, 3, 3, 2, 1), []

    def backend(graph, _):
        ran.append([str(node.target) for node in graph.graph.nodes])
        return graph.forward

    def model(x):
        return channels_first(convolved(conv, x).permute(0, 2, 3, 1))

    torch.compiler.reset()
    for dynamic in (False, True):
        x = images(1, 2, 9, 14)
        got = torch.compile(model, backend=backend, dynamic=dynamic)(x)
        assert relative_error(got, model(x)) < 1e-6
        padded, copied = (any(word in target for target in ran[-1]) for word in ('pad', 'contig'))
        assert padded == copied == dynamic
