"""A linear layer beside torch's."""

import pytest
import torch
from torch import nn

from mmwave.models.layers import Linear
from tests.contracts import images, relative_error


@pytest.mark.parametrize('shape', [(6,), (4, 6), (2, 3, 4, 6), (0, 6)])
@pytest.mark.parametrize('bias', [True, False])
def test_values_and_gradients(bias, shape):
    torch.manual_seed(0)
    layer, plain = (nn_class(6, 5, bias=bias).double() for nn_class in (Linear, nn.Linear))
    plain.load_state_dict(layer.state_dict())
    x = images(*shape).double().requires_grad_()
    results = []
    for module in (layer, plain):
        y = module(x)
        weights = images(*y.shape, seed=1).double()
        inputs = [x, *module.parameters()]
        results.append([y, *torch.autograd.grad((y * weights).sum(), inputs)])
    for got, wanted in zip(*results, strict=True):
        assert got.shape == wanted.shape
        assert not got.numel() or (got - wanted).abs().max() < 1e-13
    assert repr(layer) == repr(plain)


def test_autocast_casts_it():
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = Linear(6, 5)(images(4, 6))
    assert y.dtype == torch.bfloat16


def test_it_is_a_layer_of_torch():
    layer = Linear(6, 5)
    assert isinstance(layer, nn.Linear)
    assert relative_error(nn.Linear.forward(layer, images(2, 6)), layer(images(2, 6))) < 1e-6
