"""An axis as a ring."""

import pytest
import torch

from mmwave.ops.ring import extended, restored
from tests.contracts import images
from tests.graphs import recorded


@pytest.mark.parametrize('dim', [1, 2])
@pytest.mark.parametrize(('size', 'step', 'shift'), [(6, 3, 0), (7, 3, 2), (5, 4, -9), (1, 5, 1)])
def test_positions_follow_each_other_as_on_a_ring(dim, size, step, shift):
    x = images(2, size, size, 3)
    got = extended(x, dim, step, shift)
    whole = -(-size // step) * step
    assert got.shape[dim] == whole
    for position in range(whole):
        source = (position % size - shift) % size
        assert torch.equal(got.select(dim, position), x.select(dim, source))
    assert torch.equal(restored(got, dim, size, shift), x)


@pytest.mark.parametrize(('step', 'shift'), [(3, 0), (3, 1), (4, -2)])
def test_one_graph_is_of_any_length(step, shift):
    def there_and_back(x):
        regions = extended(x, 1, step, shift)
        return regions, restored(regions, 1, x.shape[1], shift)

    # A multiple of the step: what holds of it alone must not be in the graph.
    x = images(2, 12, 4)
    (regions, back), nodes = recorded(there_and_back, x, open_axes=(1,))
    assert torch.equal(regions, extended(x, 1, step, shift))
    assert torch.equal(back, x)
    assert sum('index_select' in node for node in nodes) == 2
