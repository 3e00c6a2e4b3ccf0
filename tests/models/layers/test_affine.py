"""A scale and a shift per channel."""

import pytest
import torch

from mmwave.models.layers import Affine
from tests.contracts import images


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('autograd', [False, True])
@pytest.mark.parametrize('channels_last', [False, True])
def test_scale_and_shift(channels_last, autograd, dtype):
    layer = Affine(3, channels_last)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, -2.0, 0.0]))
        layer.bias.copy_(torch.tensor([1.0, 0.25, 4.0]))
    layer, x = layer.to(dtype), images(2, 3, 4, 5).to(dtype)
    shape = (3, 1, 1)
    wanted = x.double() * layer.weight.double().view(shape) + layer.bias.double().view(shape)
    with torch.set_grad_enabled(autograd):
        got = layer(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if channels_last else layer(x)
    assert got.dtype == dtype
    assert got.requires_grad == autograd
    assert torch.allclose(got.double(), wanted, rtol=torch.finfo(dtype).eps, atol=1e-9)
