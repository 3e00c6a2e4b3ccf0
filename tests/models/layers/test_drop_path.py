"""Stochastic depth: which images it leaves out, and that it is mmcv's bit for bit."""

import pytest
import torch

from mmwave.models.layers import DropPath

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


def run(layer, shape, dtype):
    torch.manual_seed(3)
    x = torch.randn(shape, dtype=dtype, requires_grad=True)
    y = layer.train()(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    return x.detach(), y.detach(), gradient, torch.rand(1)


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('shape', [(16, 3, 5, 4), (9, 7, 2), (6, 5)], ids=str)
@pytest.mark.parametrize('drop_prob', [0.0, 0.1, 0.7])
def test_mmcvs_bit_for_bit(shape, dtype, drop_prob):
    theirs = pytest.importorskip('mmcv.cnn.bricks').DropPath(drop_prob)
    assert repr(DropPath(drop_prob)) == repr(theirs)
    assert DropPath(drop_prob).drop_prob == theirs.drop_prob
    # The last number says that as many were drawn before it.
    for ours, their in zip(
        run(DropPath(drop_prob), shape, dtype), run(theirs, shape, dtype), strict=True
    ):
        assert torch.equal(ours, their)


def test_whole_images_are_left_out_and_the_others_scaled():
    x, y, gradient, _ = run(DropPath(0.25), (400, 2, 3), torch.float64)
    left_out = (y == 0).flatten(1).all(1)
    assert 60 < left_out.sum() < 140
    torch.testing.assert_close(y[~left_out], x[~left_out] / 0.75)
    assert (gradient[left_out] == 0).all()
    torch.testing.assert_close(gradient[~left_out], torch.full_like(x[~left_out], 1 / 0.75))


def test_nothing_is_left_out_in_eval():
    x = torch.randn(8, 3)
    assert DropPath(0.5).eval()(x) is x
