"""``spatial_fc`` against the release's way to compute it, a grouped 1 x 1 convolution."""

import pytest
import torch
import torch.nn.functional as F

from mmwave.ops import spatial_fc
from tests.contracts import images, relative_error


def as_grouped_convolution(x, weight, bias):
    (n, c, positions), (sets, outputs, _) = x.shape, weight.shape
    maps = x.reshape(n * c // sets, sets * positions, 1, 1)
    kernel = weight.reshape(sets * outputs, positions, 1, 1)
    offset = None if bias is None else bias.flatten()
    return F.conv2d(maps, kernel, offset, groups=sets).reshape(n, c, outputs)


@pytest.mark.parametrize('with_bias', [False, True])
@pytest.mark.parametrize(
    'shape', [(2, 6, 5, 3, 5), (1, 4, 1, 4, 1), (3, 4, 7, 1, 7), (2, 8, 6, 2, 9), (1, 1, 63, 1, 63)]
)
def test_equals_a_grouped_convolution_in_values_and_gradients(shape, with_bias):
    n, c, positions, sets, outputs = shape
    x, weight = images(n, c, positions).double(), images(sets, outputs, positions, seed=1).double()
    inputs = [x.requires_grad_(), weight.requires_grad_()]
    bias = images(sets, outputs, seed=2).double().requires_grad_() if with_bias else None
    inputs += [bias] if with_bias else []
    pull = images(n, c, outputs, seed=3).double()
    got, wanted = spatial_fc(x, weight, bias), as_grouped_convolution(x, weight, bias)
    assert relative_error(got, wanted) < 1e-14
    for a, b in zip(
        torch.autograd.grad(got, inputs, pull),
        torch.autograd.grad(wanted, inputs, pull),
        strict=True,
    ):
        assert relative_error(a, b) < 1e-14


def test_consecutive_channels_use_consecutive_matrices():
    weight = torch.stack([torch.eye(3) * factor for factor in (1.0, 10.0)])
    assert spatial_fc(torch.ones(1, 4, 3), weight)[0, :, 0].tolist() == [1, 10, 1, 10]


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_low_precision_and_strided_input(dtype):
    x = images(2, 5, 8).transpose(1, 2)  # not contiguous
    weight, bias = images(4, 3, 5, seed=1), images(4, 3, seed=2)
    got = spatial_fc(x.to(dtype), weight.to(dtype), bias.to(dtype)).float()
    # Rounding of the inputs and of the output, each half a unit of the last place.
    assert relative_error(got, spatial_fc(x, weight, bias)) < 3 * torch.finfo(dtype).eps


@pytest.mark.parametrize(
    ('x', 'weight', 'bias', 'message'),
    [
        ((2, 4), (1, 4, 4), None, r'expected x \(N, C, P\) .* got \(2, 4\)'),
        ((2, 4, 5), (1, 4, 4), None, r'got \(2, 4, 5\) and \(1, 4, 4\)'),
        ((2, 4, 5), (3, 5, 5), None, '3 matrices do not divide 4 channels'),
        ((2, 4, 5), (2, 5, 5), (2, 4), r'bias has shape \(2, 4\): expected \(2, 5\)'),
    ],
)
def test_shapes_that_do_not_fit(x, weight, bias, message):
    with pytest.raises(ValueError, match=message):
        spatial_fc(torch.zeros(x), torch.zeros(weight), None if bias is None else torch.zeros(bias))
