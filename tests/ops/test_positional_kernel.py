"""Kernels beside the formula, written for one pair of positions at a time."""

import math

import pytest
import torch

from mmwave.ops import positional_kernel
from tests.contracts import images


@pytest.mark.parametrize('window', [(1, 1), (1, 4), (3, 2), (4, 4)])
def test_the_formula_pair_by_pair(window):
    h, w = window
    centers, spreads = images(2, 2).double(), images(2, 2, 2).double()
    places = [(row, column) for row in range(h) for column in range(w)]
    wanted = torch.empty(2, h * w, h * w, dtype=torch.float64)
    for s in range(2):
        precision = spreads[s] @ spreads[s].T
        for p, (row, column) in enumerate(places):
            for q, (other_row, other_column) in enumerate(places):
                # Columns to the right, rows upwards.
                offset = torch.tensor([other_column - column, row - other_row]) - centers[s]
                wanted[s, p, q] = math.exp(-(offset @ precision @ offset) / 2)
    wanted /= wanted.sum(dim=2, keepdim=True)
    got = positional_kernel(centers, spreads, window)
    assert got.shape == wanted.shape
    assert torch.allclose(got, wanted, rtol=1e-12, atol=0)


def test_gradients():
    leaves = images(2, 2).double().requires_grad_(), images(2, 2, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda *xs: positional_kernel(*xs, (2, 3)), leaves)


def test_kernel_of_a_smaller_window_is_that_of_the_larger_among_fewer_positions():
    centers, spreads = images(3, 2).double(), images(3, 2, 2).double()
    large = positional_kernel(centers, spreads, (5, 6))
    small = positional_kernel(centers, spreads, (3, 4))
    part = large.view(3, 5, 6, 5, 6)[:, 1:4, 2:, 1:4, 2:].reshape(3, 12, 12)
    assert torch.allclose(small, part / part.sum(dim=2, keepdim=True), rtol=1e-12, atol=0)


def test_computed_in_float32_at_least():
    leaves = images(4, 2), images(4, 2, 2)
    wanted = positional_kernel(*leaves, (14, 14))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        lowered = positional_kernel(*leaves, (14, 14))
    assert lowered.dtype == torch.float32
    assert torch.equal(lowered, wanted)
    for dtype, exact in ((torch.float16, torch.float32), (torch.float64, torch.float64)):
        assert positional_kernel(*(t.to(dtype) for t in leaves), (3, 4)).dtype == exact
