"""The channels of a map in two halves."""

import torch

from mmwave.models.layers import halves
from tests.contracts import images


def test_first_and_last_channels_each_in_memory_of_its_own():
    x = images(2, 3, 4, 6)
    first, last = halves(x)
    assert torch.equal(torch.cat([first, last], dim=3), x)
    for half in (first, last):
        assert half.is_contiguous()
        assert half.untyped_storage().nbytes() == x.nbytes // 2


def test_gradients():
    x = images(2, 6).double().requires_grad_()
    first, last = halves(x)
    (gradient,) = torch.autograd.grad((first * 2 + last * 3).sum(), x)
    assert torch.equal(gradient, torch.tensor([2.0, 2, 2, 3, 3, 3]).double().expand(2, 6))
