"""A linear layer over positions."""

import pytest
import torch
import torch.nn.functional as F

from mmwave.models.layers import TokenLinear
from tests.contracts import images, relative_error


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('outputs', [12, 7])
def test_positions_of_every_channel_are_mixed_alike(outputs, bias):
    torch.manual_seed(0)
    layer = TokenLinear(12, outputs, bias=bias).double()
    x = images(3, 12, 5).double()
    wanted = torch.einsum('qp,npc->nqc', layer.weight, x)
    if bias:
        wanted = wanted + layer.bias[:, None]
    assert relative_error(layer(x), wanted) < 1e-14


def test_gradients_of_weights_and_maps():
    """The product from the left and the one from the right, values and gradients."""
    layer = TokenLinear(12, 7).double()
    x = images(3, 12, 5).double().requires_grad_()
    weights = images(3, 7, 5, seed=2).double()
    results = []
    for out in (layer(x), F.linear(x.transpose(1, 2), layer.weight, layer.bias).transpose(1, 2)):
        results.append([out, *torch.autograd.grad((out * weights).sum(), [x, *layer.parameters()])])
    for got, wanted in zip(*results, strict=True):
        assert relative_error(got, wanted) < 1e-14
