"""What is computed in place, and when."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from mmwave.models.layers.inplace import activate, add, may_overwrite, multiply
from tests.contracts import compiled, images


def test_in_place_where_nobody_looks():
    x = images(2, 3)
    assert not may_overwrite(x)  # autograd is on
    for off in (torch.no_grad, torch.inference_mode):
        with off():
            assert may_overwrite(x)
            assert may_overwrite(x, x + 1)
            assert not may_overwrite(x, x.double())  # the sum is of the wider dtype
            assert not may_overwrite(x, x, x.bfloat16())


@torch.no_grad()
def test_not_where_others_look_at_operations():
    x = images(2, 3)
    with FlopCounterMode(display=False):
        assert not may_overwrite(x)
    with forward_ad.dual_level():
        assert not may_overwrite(x)
    seen = []
    torch.func.vmap(lambda row: seen.append(may_overwrite(row)) or row)(x)
    assert seen == [False]
    torch.jit.trace(lambda x: seen.append(may_overwrite(x)) or x + 1, x, check_trace=False)
    assert seen == [False, False]


FUNCTIONS = {
    'add': (lambda x: add(x, torch.ones_like(x)), lambda x: x + 1),
    'multiply': (lambda x: multiply(x, torch.full_like(x, 3)), lambda x: 3 * x),
    'activate': (lambda x: activate(nn.GELU('tanh'), x), nn.GELU('tanh')),
}


@pytest.mark.parametrize('name', FUNCTIONS)
def test_values_in_place_and_not(name):
    function, plain = FUNCTIONS[name]
    x = images(4, 5).double()
    wanted = plain(x)
    kept = x.clone()
    torch.testing.assert_close(function(x), wanted, rtol=1e-14, atol=1e-14)
    assert torch.equal(x, kept)  # autograd is on
    with torch.no_grad():
        got = function(x)
    assert got is x
    torch.testing.assert_close(got, wanted, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize('name', FUNCTIONS)
def test_values_in_graphs(name):
    function, plain = FUNCTIONS[name]
    x = images(4, 5)
    kept = x.clone()
    with torch.no_grad():
        torch.testing.assert_close(compiled(function, fullgraph=True)(x), plain(kept))
    assert torch.equal(x, kept)


@torch.no_grad()
def test_results_are_of_the_wider_dtype():
    low, x = images(4).bfloat16(), images(4)
    assert add(low, x).dtype == multiply(low, x).dtype == torch.float32
    assert low.dtype == torch.bfloat16


@torch.no_grad()
def test_other_activations_decide_for_themselves():
    class Own(nn.GELU):
        def forward(self, x):
            return 2 * x

    x = images(4)
    kept = x.clone()
    assert torch.equal(activate(Own(), x), 2 * kept)
    assert torch.equal(activate(nn.ReLU(), x), kept.relu())
    assert torch.equal(x, kept)
