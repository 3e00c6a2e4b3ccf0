"""Sizes that are read from names and shapes."""

import time

import pytest

from mmwave.convert.sizes import (
    MAX_BLOCKS,
    blocks_of,
    classes_of,
    ratio_of,
    shape_of,
    side_of,
)
from mmwave.errors import UserError

from .ours import recognised
from .published import REPMLPNET_TINY, gmlp, repmlpnet


def test_shapes():
    assert shape_of({'a': (2, 3)}, 'a', 2, 'gMLP') == (2, 3)
    with pytest.raises(UserError, match='no gMLP: b is missing'):
        shape_of({'a': (2, 3)}, 'b', 2, 'gMLP')
    for shape in ((2,), (2, 0), ()):
        with pytest.raises(UserError, match=r'no gMLP: a has shape .*, expected 2 axes'):
            shape_of({'a': shape}, 'a', 2, 'gMLP')


def test_blocks_and_classes():
    shapes = dict.fromkeys(('a.0.x', 'a.0.y', 'a.10.x', 'b.1.x', 'head.weight'), (7, 3))
    assert (blocks_of(shapes, 'a.'), blocks_of(shapes, 'c.')) == (2, 0)
    assert classes_of(shapes) == 7
    assert classes_of({}) is classes_of({'head.weight': ()}) is None


def test_ratios_and_sides():
    assert (ratio_of(12, 4, 'x'), side_of(49, 'x')) == (3, 7)
    with pytest.raises(UserError, match='channels: 12 is no multiple of 5'):
        ratio_of(12, 5, 'channels')
    with pytest.raises(UserError, match='windows: 48 positions are no square'):
        side_of(48, 'windows')


def test_files_of_too_many_blocks_or_kernels_are_refused_at_once():
    many = {f'blocks.{k}.norm.bias': (8,) for k in range(100_000)}
    kernels = {
        f'stages.0.0.repmlp_block.repconv{k}.conv.weight': (1, 1, k, k) for k in range(1, 99, 2)
    }
    for shapes, message in (
        (gmlp(depth=1, dim=8, grid=2) | many, f'100000 blocks .* {MAX_BLOCKS} at most'),
        (repmlpnet(**REPMLPNET_TINY) | kernels, '49 kernels in a block: expected 8 at most'),
    ):
        start = time.monotonic()
        with pytest.raises(UserError, match=message):
            recognised(shapes)
        assert time.monotonic() - start < 20


def test_as_many_blocks_as_are_allowed():
    _, target = recognised(gmlp(depth=MAX_BLOCKS, dim=8, grid=2))
    assert sum(target.sizes.depths) == MAX_BLOCKS


@pytest.mark.parametrize('shape', [(0, 8), (2**31, 2), ()])
def test_strange_shapes_are_users_errors(shape):
    shapes = gmlp(depth=1, dim=8, grid=2)
    for name in shapes:
        with pytest.raises(UserError):
            recognised({**shapes, name: shape})
