"""``gelu_`` against the exact function."""

import pytest
import torch
import torch.nn.functional as F

from mmwave.ops import gelu_, linear, use_backend
from tests.contracts import images


def every_number():
    """Return all finite numbers of bfloat16."""
    x = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    return x[x.isfinite()]


def test_every_number_of_bfloat16(kernels):
    x = every_number()
    wanted = F.gelu(x.double())
    with use_backend('cpp'):
        got = gelu_(x.clone())
    # 2e-5, and half an ulp of the result, which is rounded to eight bits.
    assert ((got.double() - wanted).abs() <= 2e-5 + wanted.abs() / 2**8).all()


def test_nan_stays_nan(kernels):
    x = torch.tensor([1.0, float('nan'), float('inf')] * 20).bfloat16()
    with use_backend('cpp'):
        got = gelu_(x.clone())
    assert torch.equal(got.isnan(), x.isnan())
    assert torch.equal(got.isinf(), x.isinf())


@pytest.mark.parametrize('count', [0, 1, 15, 33, 40000])
def test_any_length_in_place(kernels, count):
    x = images(count).bfloat16() if count else torch.zeros(0).bfloat16()
    wanted = F.gelu(x.double())
    with use_backend('cpp'):
        assert gelu_(x) is x
    assert torch.allclose(x.double(), wanted, rtol=2**-8, atol=1e-4)


@pytest.mark.parametrize('approximate', ['none', 'tanh'])
def test_the_reference_is_torchs(approximate):
    x = images(3, 50)
    wanted = F.gelu(x, approximate=approximate)
    assert gelu_(x, approximate) is x
    assert torch.equal(x, wanted)


def test_the_tanh_approximation_is_torchs(kernels):
    x = every_number()
    assert torch.equal(gelu_(x.clone(), 'tanh'), F.gelu(x, approximate='tanh'))
    with (
        use_backend('cpp'),
        pytest.raises(RuntimeError, match="not approximate='tanh'"),
    ):
        gelu_(x, 'tanh')


def test_reasons_against_the_kernel(kernels):
    x = images(4, 6).bfloat16()
    with use_backend('cpp'):
        for reason, tensor in {
            'supports bfloat16 on the CPU': x.float(),
            'must be contiguous': x.t(),
            'inference only': x.clone().requires_grad_(),
        }.items():
            with pytest.raises(RuntimeError, match=reason):
                gelu_(tensor)


@torch.no_grad()
def test_behind_a_product(kernels):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip('this CPU does not support bfloat16')
    x, weight = images(300, 64).bfloat16(), (images(96, 64, seed=1) / 8).bfloat16()
    before = x.clone()
    exact = F.gelu(F.linear(x.double(), weight.double()))
    for rows in (x, x.t().contiguous().t()):
        with use_backend('onednn'):
            got = linear(rows, weight, gelu='none')
        assert (got.double() - exact).norm() <= 4e-3 * exact.norm()
    assert torch.equal(x, before)


def test_autograd_notices_the_in_place_change(kernels):
    x = images(4, 6).bfloat16()
    leaf = torch.ones((), dtype=torch.bfloat16, requires_grad=True)
    product = leaf * x
    with torch.no_grad(), use_backend('cpp'):
        gelu_(x)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        product.sum().backward()
