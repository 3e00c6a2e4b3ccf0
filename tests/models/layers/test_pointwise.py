"""A 1 x 1 convolution, whatever the memory format."""

import pytest
import torch
import torch.nn.functional as F

from mmwave.models.layers import PointwiseConv
from tests.contracts import images, relative_error


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('bias', [True, False])
def test_values_gradients_and_the_memory_format(bias, layout):
    torch.manual_seed(0)
    layer = PointwiseConv(6, 5, bias=bias).double()
    x = images(2, 6, 3, 4).double().contiguous(memory_format=layout).requires_grad_()
    weights, inputs = images(2, 5, 3, 4, seed=1).double(), [x, *layer.parameters()]
    results = []
    for y in (layer(x), F.conv2d(x, layer.weight, layer.bias)):
        assert y.is_contiguous(memory_format=layout)
        results.append([y, *torch.autograd.grad((y * weights).sum(), inputs)])
    for got, wanted in zip(*results, strict=True):
        assert relative_error(got, wanted) < 1e-14


def test_maps_with_channels_last_are_one_product(monkeypatch):
    calls = []
    layer, x = PointwiseConv(6, 5), images(2, 6, 3, 4)
    monkeypatch.setattr(layer, '_conv_forward', lambda *_: calls.append(1) or torch.zeros(1))
    layer(x.contiguous(memory_format=torch.channels_last))
    assert not calls
    layer(x)
    assert calls
