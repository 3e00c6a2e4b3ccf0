"""Values noted in a checkpoint: anything at all, until it is checked."""

import numpy as np
import pytest
import torch

from mmwave.checkpoint.notes import brief, equals


class Hostile:
    """What raises wherever it is asked."""

    def __repr__(self):
        raise OSError('no')


def nested():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


def test_plain_values():
    assert equals((1, 'a'), (1, 'a'))
    assert not equals(1, '1')
    assert not equals({'a': 1}, None)


@pytest.mark.parametrize('noted', [torch.ones(3), np.ones(3), [torch.ones(2)]])
def test_arrays_equal_no_plain_value(noted):
    assert not equals([1, 1, 1], noted)


def test_nesting_is_no_crash():
    assert not equals(nested(), nested())
    assert brief(nested()) == 'a list'


def test_one_line_cut():
    assert brief('a\nb') == r"'a\nb'"
    assert brief('x' * 200, most=20) == f"'{'x' * 19}... (202 characters)"
    assert brief(Hostile()) == 'a Hostile'
