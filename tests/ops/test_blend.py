"""``blend_`` against its formula."""

import pytest
import torch
import torch.nn.functional as F

from mmwave.ops import blend_, use_backend
from mmwave.ops._blend import blend_reference
from tests.contracts import images

pytestmark = pytest.mark.usefixtures('two_threads')


def draw(n, h, w, c, count=3, dtype=torch.bfloat16):
    """Maps, factors that differ from image to image, a layer and a shortcut."""
    maps = [images(n, h, w, c, seed=k).to(dtype) for k in range(count)]
    factors = [images(n, 1, 1, c, seed=10 + k).to(dtype) for k in range(count)]
    weight, bias = (images(c, c, seed=20) / c**0.5).to(dtype), images(c, seed=21).to(dtype)
    return maps, factors, weight, bias, images(n, h, w, c, seed=22).to(dtype)


def exact(maps, factors, weight, bias, shortcut):
    total = sum(x.double() * f.double() for x, f in zip(maps, factors, strict=True))
    return shortcut.double() + F.linear(total, weight.double(), bias.double())


@pytest.mark.parametrize('count', [1, 3])
@pytest.mark.parametrize('shape', [(1, 1, 1, 32), (2, 3, 5, 64), (3, 9, 11, 96)])
def test_kernel(multiplying, shape, count):
    maps, *rest = draw(*shape, count=count)
    kept = [t.clone() for t in (*maps[1:], *rest[0], *rest[1:])]
    wanted = exact(maps, *rest)
    plain = blend_reference([maps[0].clone(), *maps[1:]], *rest)
    with use_backend('cpp'):
        got = blend_(maps, *rest)
    others = (*maps[1:], *rest[0], *rest[1:])
    assert all(torch.equal(a, b) for a, b in zip(others, kept, strict=True))
    assert (got.double() - wanted).norm() <= 1.1 * (plain.double() - wanted).norm()


def test_kernel_with_other_strides(multiplying):
    maps, factors, *rest = draw(2, 3, 5, 64)
    # Slices as the third map and the factors, and a shortcut with channels first.
    maps[2] = torch.cat([maps[2], maps[2]], dim=3)[..., :64]
    factors = [torch.stack([f, f], dim=1)[:, 0] for f in factors]
    rest[2] = rest[2].permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    wanted = exact(maps, factors, *rest)
    with use_backend('cpp'):
        got = blend_(maps, factors, *rest)
    assert (got.double() - wanted).norm() <= 5e-3 * wanted.norm()


def test_reference():
    maps, *rest = draw(2, 3, 5, 6, dtype=torch.float64)
    wanted = exact(maps, *rest)
    got = blend_(maps, *rest)
    assert (got - wanted).norm() <= 1e-14 * wanted.norm()


def test_the_shortcut_keeps_its_dtype_under_autocast():
    maps, *rest = draw(1, 2, 3, 4, dtype=torch.float32)
    wanted = exact(maps, *rest)
    with torch.no_grad(), torch.autocast('cpu', torch.bfloat16):
        got = blend_(maps, *rest)
    assert got.dtype == torch.float32
    assert (got - wanted).norm() <= 1e-2 * wanted.norm()


def test_what_the_kernel_does_not_support(multiplying):
    maps, factors, weight, bias, shortcut = draw(1, 2, 3, 32)
    across = [maps[0].transpose(1, 2).contiguous().transpose(1, 2), *maps[1:]]
    cases = {
        'supports bfloat16': (
            [m.float() for m in maps],
            factors,
            weight,
            bias,
            shortcut,
        ),
        'first map must be contiguous': (across, factors, weight, bias, shortcut),
        'multiple of 32, not 40': draw(1, 2, 3, 40),
        'inference only': (maps, factors, weight.clone().requires_grad_(), bias, shortcut),
    }
    for reason, arguments in cases.items():
        with use_backend('cpp'), pytest.raises(RuntimeError, match=reason):
            blend_(*arguments)


def test_shapes_that_do_not_fit():
    maps, factors, weight, bias, shortcut = draw(1, 2, 3, 4)
    for arguments, message in (
        (([], [], weight, bias, shortcut), 'maps and a shortcut of one shape'),
        ((maps[:2], factors, weight, bias, shortcut), r'expected 2 factors \(1, 1, 1, 4\)'),
        ((maps, factors, weight, bias, shortcut[:, :1]), 'one shape'),
        (([*maps[:2], maps[2][..., :2]], factors, weight, bias, shortcut), 'one shape'),
        ((maps, [f[:, 0] for f in factors], weight, bias, shortcut), 'expected 3 factors'),
        ((maps, factors, weight[:2], bias, shortcut), r'weight \(4, 4\)'),
        ((maps, factors, weight, bias[:2], shortcut), r'bias \(4,\)'),
    ):
        with pytest.raises(ValueError, match=message):
            blend_(*arguments)


def test_empty_batch(multiplying):
    with use_backend('cpp'):
        assert blend_(*draw(0, 3, 5, 32)).shape == (0, 3, 5, 32)


def test_autograd_notices_the_in_place_change(multiplying):
    maps, *rest = draw(1, 2, 3, 32)
    leaf = torch.ones((), dtype=torch.bfloat16, requires_grad=True)
    product = leaf * maps[0]
    with torch.no_grad(), use_backend('cpp'):
        blend_(maps, *rest)
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        product.sum().backward()
