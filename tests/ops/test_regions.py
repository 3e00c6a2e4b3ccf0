"""Regions of rows and columns, on a ring."""

import pytest
import torch

from mmwave.ops.regions import from_regions, to_regions
from tests.contracts import images

CASES = [(6, 3, 0), (7, 3, 2), (5, 4, -9), (2, 5, 1), (4, 1, 3)]


@pytest.mark.parametrize('dim', [1, 2])
@pytest.mark.parametrize(('length', 'size', 'shift'), CASES)
def test_positions_follow_each_other_as_on_a_ring(dim, length, size, shift):
    x = images(2, length, length, 3)
    regions = to_regions(x, dim, size, shift)
    assert regions.shape[dim] == -(-length // size)
    for region in range(regions.shape[dim]):
        for row in range(size):
            source = ((region * size + row) % length - shift) % length
            got = regions.select(dim, region)[..., row::size]
            assert torch.equal(got, x.select(dim, source))
    assert torch.equal(from_regions(regions, dim, size, (length, length), shift), x)


@pytest.mark.parametrize('dim', [1, 2])
@pytest.mark.parametrize(('length', 'size', 'shift'), CASES)
def test_a_graph_of_any_size_computes_the_same(dim, length, size, shift):
    def there_and_back(x):
        regions = to_regions(x, dim, size, shift)
        return regions, from_regions(regions, dim, size, (x.shape[1], x.shape[2]), shift)

    x = images(2, length, length + 2, 3)
    # Traced where the regions fill the map: what holds of it alone must not be in the graph.
    side = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        Function(there_and_back),
        (images(2, 4 * size, 8 * size, 3),),
        dynamic_shapes=({1: side, 2: side},),
    )
    regions, back = program.module()(x)
    assert torch.equal(regions.flatten(1, 2), to_regions(x, dim, size, shift).flatten(1, 2))
    assert torch.equal(back, x)


class Function(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = function
