"""``mlp_add_`` against its formula."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwave.ops import chunks, mlp_add_, use_backend
from mmwave.ops._mlp_add import mlp_add_reference
from tests.contracts import images

pytestmark = pytest.mark.usefixtures('two_threads')


def draw(rows, inputs, hidden, outputs, dtype=torch.bfloat16):
    """Return x, source, and the weights and biases of two layers."""
    tensors = (
        images(rows, outputs),
        images(rows, inputs, seed=1),
        images(hidden, inputs, seed=2) / inputs**0.5,
        images(hidden, seed=3),
        images(outputs, hidden, seed=4) / hidden**0.5,
        images(outputs, seed=5),
    )
    return [t.to(dtype) for t in tensors]


def exact(x, source, w1, b1, w2, b2):
    x, source, w1, b1, w2, b2 = (t.double() for t in (x, source, w1, b1, w2, b2))
    return x + F.linear(F.gelu(F.linear(source, w1, b1)), w2, b2)


# Fewer rows than a tile, whole tiles, and more than go through both layers at a time.
SIZES = [
    (1, 2, 32, 32),
    (5, 32, 64, 96),
    (12, 64, 32, 64),
    (131, 96, 160, 32),
    (601, 64, 256, 64),
]


@pytest.mark.parametrize('sizes', SIZES)
def test_kernel(multiplying, sizes):
    tensors = draw(*sizes)
    before = [t.clone() for t in tensors]
    wanted = exact(*tensors)
    plain = mlp_add_reference(tensors[0].clone(), *tensors[1:])
    with use_backend('cpp'):
        got = mlp_add_(*tensors)
    assert got is tensors[0]
    assert all(torch.equal(a, b) for a, b in zip(tensors[1:], before[1:], strict=True))
    assert (got.double() - wanted).norm() <= 1.1 * (plain.double() - wanted).norm()


def test_kernel_whose_source_is_overwritten(multiplying):
    x, _, *weights = draw(601, 64, 256, 64)
    wanted = exact(x, x, *weights)
    with use_backend('cpp'):
        got = mlp_add_(x, x, *weights)
    assert (got.double() - wanted).norm() <= 4e-3 * wanted.norm()


def test_nan_stays_in_its_row(multiplying):
    x, source, *weights = draw(100, 64, 96, 32)
    source[7, 3] = float('nan')
    with use_backend('cpp'):
        got = mlp_add_(x, source, *weights)
    rows = got.isnan().all(dim=1)
    assert rows.nonzero().tolist() == [[7]]
    assert not got[~rows].isnan().any()


def test_kernel_sees_changed_weights(multiplying):
    x, source, *weights = draw(20, 32, 64, 32)
    weights = [nn.Parameter(w) for w in weights]
    with torch.no_grad(), use_backend('cpp'):
        for _ in range(2):
            got = mlp_add_(x.clone(), source, *weights)
            wanted = exact(x, source, *weights)
            assert (got.double() - wanted).norm() <= 4e-3 * wanted.norm()
            weights[0].mul_(-1)
            weights[2].mul_(2)


@pytest.mark.parametrize('gelu', ['none', 'tanh'])
@pytest.mark.parametrize('with_bias', [False, True])
def test_reference_in_chunks(monkeypatch, gelu, with_bias):
    monkeypatch.setattr(chunks, 'CPU_CHUNK', 7)
    x, source, w1, b1, w2, b2 = draw(20, 6, 10, 4, dtype=torch.float64)
    b1, b2 = (b if with_bias else None for b in (b1, b2))
    wanted = x + F.linear(F.gelu(F.linear(source, w1, b1), approximate=gelu), w2, b2)
    got = mlp_add_(x, source, w1, b1, w2, b2, gelu=gelu)
    assert got is x
    assert (got - wanted).norm() <= 1e-14 * wanted.norm()


def test_what_the_kernel_does_not_support(multiplying):
    good = draw(8, 32, 64, 32)
    cases = {
        'supports bfloat16': [t.float() for t in good],
        r'multiples of 32, inputs even, not 40, 32 and 32': draw(8, 32, 40, 32),
        r'not 64, 48 and 32': draw(8, 32, 64, 48),
        r'not 64, 32 and 33': draw(8, 33, 64, 32),
        'must be contiguous': [good[0].t().contiguous().t(), *good[1:]],
        'inference only': [*good[:2], good[2].clone().requires_grad_(), *good[3:]],
        'both biases': [*good[:3], None, *good[4:]],
    }
    for reason, tensors in cases.items():
        with use_backend('cpp'), pytest.raises(RuntimeError, match=reason):
            mlp_add_(*tensors)
        with torch.no_grad():
            mlp_add_(*tensors)  # by the reference
    with use_backend('cpp'), pytest.raises(RuntimeError, match="exact GELU, not gelu='tanh'"):
        mlp_add_(*good, gelu='tanh')


def test_shapes_that_do_not_fit():
    good = draw(8, 32, 64, 32)
    for k, wrong in (
        *((0, (9, 32)), (0, (32,)), (1, (8, 30)), (2, (60, 32)), (4, (32, 60))),
        *((3, (96,)), (3, (1, 64)), (5, (31,))),
    ):
        tensors = list(good)
        tensors[k] = torch.zeros(wrong)
        with pytest.raises(ValueError, match=r'expected x \(P, C\), source \(P, C_in\)'):
            mlp_add_(*tensors)


def test_empty_maps(multiplying):
    x, source, *weights = draw(0, 32, 64, 32)
    with use_backend('cpp'):
        assert mlp_add_(x, source, *weights).shape == (0, 32)


def test_autograd_notices_the_in_place_change(multiplying):
    x, source, *weights = draw(8, 32, 64, 32)
    leaf = torch.ones((), dtype=torch.bfloat16, requires_grad=True)
    product = leaf * x
    with torch.no_grad(), use_backend('cpp'):
        mlp_add_(x, source, *weights)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        product.sum().backward()
