"""Differences between a file and a model."""

import numpy as np
import pytest

from mmwave.export.compare import LIMIT, compare

SHAPE = (1, 3, 4, 4)


def test_errors_are_the_largest_of_all_outputs():
    wanted = dict(a=np.array([1.0, -4.0]), b=np.array([100.0, 0.0]))
    got = dict(a=np.array([1.0, -3.0]), b=np.array([98.0, 0.0]))
    found = compare(SHAPE, got, wanted)
    assert (found.absolute, found.relative) == (2.0, 1 / 4)
    assert not found.is_good
    assert compare(SHAPE, wanted, wanted).relative == 0


@pytest.mark.parametrize(('factor', 'good'), [(1 + LIMIT / 2, True), (1 + 2 * LIMIT, False)])
def test_the_limit(factor, good):
    wanted = dict(a=np.linspace(-3, 2, 11))
    assert compare(SHAPE, dict(a=factor * wanted['a']), wanted).is_good is good


@pytest.mark.parametrize('got', [{}, dict(a=np.zeros((1, 3))), dict(a=np.array([1.0, np.nan]))])
def test_a_missing_output_another_shape_and_nan_are_no_match(got):
    found = compare(SHAPE, got, dict(a=np.array([1.0, 2.0])))
    assert found.relative == float('inf')
    assert not found.is_good
    assert found.detail.startswith('a ')


def test_nan_of_the_model_is_no_match():
    nan = dict(a=np.array([1.0, np.nan]))
    assert not compare(SHAPE, nan, nan).is_good


def test_an_output_of_zeros():
    zeros = dict(a=np.zeros(3))
    assert compare(SHAPE, zeros, zeros).is_good
    assert not compare(SHAPE, dict(a=np.full(3, 1e-3)), zeros).is_good
