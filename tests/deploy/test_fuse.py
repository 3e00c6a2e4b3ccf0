"""Folded layers compute what the layers did, elementwise, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwave.deploy.fuse import (
    conv_to_fc,
    fuse_norm_after,
    fuse_norm_before,
    norm_affine,
    pad_kernel,
)
from tests.contracts import images, randomise_norms, relative_error


def norm(channels, eps=1e-5):
    made = nn.BatchNorm2d(channels, eps=eps).double().eval()
    randomise_norms(made)
    return made


def affine(made):
    return norm_affine(made.weight, made.bias, made.running_mean, made.running_var, made.eps)


@pytest.mark.parametrize('eps', [1e-5, 1e-1])
def test_norm_as_scale_and_shift(eps):
    made, x = norm(4, eps), images(2, 4, 3, 5).double()
    scale, shift = affine(made)
    assert relative_error(x * scale[:, None, None] + shift[:, None, None], made(x)) < 1e-14


@pytest.mark.parametrize('bias', [False, True])
@pytest.mark.parametrize(('kernel', 'groups'), [(1, 1), (3, 1), (3, 4), ((1, 3), 2)])
def test_norm_behind_a_convolution(kernel, groups, bias):
    conv = nn.Conv2d(4, 8, kernel, groups=groups, bias=bias, padding='same').double()
    made, x = norm(8), images(2, 4, 5, 7).double()
    weight, offset = fuse_norm_after(conv.weight, conv.bias, *affine(made))
    got = F.conv2d(x, weight, offset, groups=groups, padding='same')
    assert relative_error(got, made(conv(x))) < 1e-14


@pytest.mark.parametrize('bias', [False, True])
def test_norm_in_front_of_a_pointwise_convolution(bias):
    conv = nn.Conv2d(4, 6, 1, bias=bias).double()
    made, x = norm(4), images(2, 4, 5, 7).double()
    weight, offset = fuse_norm_before(conv.weight, conv.bias, *affine(made))
    assert relative_error(F.conv2d(x, weight, offset), conv(made(x))) < 1e-14
    weight, _ = fuse_norm_before(conv.weight.flatten(1), conv.bias, *affine(made))
    assert weight.shape == (6, 4)


def test_norm_in_front_of_a_larger_kernel_is_refused():
    with pytest.raises(ValueError, match=r'1 x 1 kernel .* \(6, 4, 3, 3\)'):
        fuse_norm_before(torch.zeros(6, 4, 3, 3), None, torch.ones(4), torch.zeros(4))


@pytest.mark.parametrize(('kernel', 'size'), [((1, 1), (3, 3)), ((3, 1), (3, 5)), ((3, 3), (3, 3))])
def test_padded_kernel_is_the_same_convolution(kernel, size):
    weight, x = images(2, 1, *kernel).double(), images(1, 2, 6, 5, seed=1).double()
    padded = pad_kernel(weight, size)
    assert padded.shape[2:] == size
    a, b = (F.conv2d(x, k, padding='same', groups=2) for k in (weight, padded))
    assert torch.equal(a, b)


@pytest.mark.parametrize('size', [(1, 1), (4, 4)])
def test_kernel_that_would_lose_its_centre_is_refused(size):
    with pytest.raises(ValueError, match='cannot stand in the middle'):
        pad_kernel(torch.zeros(1, 1, 3, 3), size)


@pytest.mark.parametrize('window', [(4, 4), (5, 3), (2, 7), (1, 6), (1, 1), (2, 2)])
@pytest.mark.parametrize('kernel', [(1, 1), (3, 3), (5, 5), (3, 1), (1, 7)])
def test_convolution_as_matrices(kernel, window):
    weight, x = images(3, 1, *kernel).double(), images(2, 3, *window, seed=1).double()
    matrices = conv_to_fc(weight, window)
    got = torch.einsum('sqp,nsp->nsq', matrices, x.flatten(2)).view_as(x)
    wanted = F.conv2d(x, weight, groups=3, padding=[side // 2 for side in kernel])
    assert relative_error(got, wanted) < 1e-14


@pytest.mark.parametrize('window', [(4, 4), (5, 3)])
def test_the_comparison_sees_a_transposed_kernel(window):
    weight, x = images(3, 1, 3, 3).double(), images(2, 3, *window, seed=1).double()
    matrices = conv_to_fc(weight.transpose(2, 3), window)
    got = torch.einsum('sqp,nsp->nsq', matrices, x.flatten(2)).view_as(x)
    assert relative_error(got, F.conv2d(x, weight, groups=3, padding=1)) > 1e-2


@pytest.mark.parametrize('shape', [(4, 2, 3, 3), (4, 1, 2, 3)])
def test_other_kernels_are_refused(shape):
    with pytest.raises(ValueError, match=r'depthwise kernel .* of odd sides'):
        conv_to_fc(torch.zeros(shape), (4, 4))


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
def test_results_keep_the_weight_s_precision_and_are_rounded_once(dtype):
    weight, bias = images(4, 1, 3, 3), images(4, seed=1)
    wide = [t.to(dtype).double() for t in (weight, bias, bias + 1, bias + 2)]
    for function, (rounded, exact) in {
        'norm behind': (
            fuse_norm_after(*(t.to(dtype) for t in (weight, bias, bias + 1, bias + 2))),
            fuse_norm_after(*wide),
        ),
        'matrices': ([conv_to_fc(weight.to(dtype), (3, 2))], [conv_to_fc(wide[0], (3, 2))]),
    }.items():
        for got, wanted in zip(rounded, exact, strict=True):
            assert got.dtype == dtype, function
            assert torch.equal(got, wanted.to(dtype)), function
