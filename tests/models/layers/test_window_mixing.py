"""Layers that mix the positions of windows on maps of any size."""

import pytest
import torch
import torch.nn.functional as F

from mmwave.models.layers.window_mixing import Windows
from mmwave.ops.windows import spans
from tests.contracts import images, relative_error

TRAINED = (3, 4)
SIZES = [(3, 4), (6, 8), (7, 9), (1, 2)]


def sums(part, window):
    """Every position becomes the sum of its window, by its height."""
    assert part.shape[2] == window[0] * window[1]
    return (part.sum(dim=2, keepdim=True) * window[0]).expand_as(part)


@pytest.mark.parametrize('size', SIZES)
def test_trained_windows_are_filled_up_with_zeros(size):
    x = images(2, *size, 5).double()
    wanted = torch.empty_like(x)
    for top in range(0, size[0], 3):
        for left in range(0, size[1], 4):
            where = (slice(None), slice(top, top + 3), slice(left, left + 4))
            wanted[where] = 3 * x[where].sum(dim=(1, 2), keepdim=True)
    assert relative_error(Windows(TRAINED).mixed(x, sums), wanted) < 1e-14


@pytest.mark.parametrize('size', SIZES)
def test_resized_windows_fill_the_map(size):
    x = images(2, *size, 5).double()
    wanted, top = torch.empty_like(x), 0
    for h in (s for n, s in spans(size[0], 3) for _ in range(n)):
        left = 0
        for w in (s for n, s in spans(size[1], 4) for _ in range(n)):
            where = (slice(None), slice(top, top + h), slice(left, left + w))
            wanted[where] = h * x[where].sum(dim=(1, 2), keepdim=True)
            left += w
        top += h
    assert relative_error(Windows(TRAINED, resize=True).mixed(x, sums), wanted) < 1e-14


def test_values_of_positions_are_interpolated():
    values = images(1, 12).double()
    windows = Windows(TRAINED, resize=True)
    assert windows.resampled(values, TRAINED) is values
    for window in ((2, 5), (5, 3), (1, 1)):
        wanted = F.interpolate(values.view(1, 1, 3, 4), window, mode='bilinear', antialias=True)
        assert relative_error(windows.resampled(values, window), wanted.view(1, -1)) < 1e-14
