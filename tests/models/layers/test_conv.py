"""A convolution beside torch's."""

import pytest
import torch
from torch import nn

from mmwave.models.layers import Conv2d
from tests.contracts import images, relative_error


@pytest.mark.parametrize('size', [(5, 7), (8, 8)])
@pytest.mark.parametrize(
    'sides',
    [
        dict(kernel_size=3, stride=2, padding=1),
        dict(kernel_size=3, padding=1, groups=4),
        dict(kernel_size=2, stride=2, bias=False),
        dict(kernel_size=1, groups=2),
    ],
    ids=str,
)
def test_values_and_gradients(sides, size):
    torch.manual_seed(0)
    layer, plain = (made(4, 8, **sides).double() for made in (Conv2d, nn.Conv2d))
    plain.load_state_dict(layer.state_dict())
    x = images(2, 4, *size).double().requires_grad_()
    results = []
    for module in (layer, plain):
        y = module(x)
        weights = images(*y.shape, seed=1).double()
        inputs = [x, *module.parameters()]
        results.append([y, *torch.autograd.grad((y * weights).sum(), inputs)])
    for got, wanted in zip(*results, strict=True):
        assert relative_error(got, wanted) < 1e-14
    assert repr(layer) == repr(plain)
