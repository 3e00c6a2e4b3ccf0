"""The three implementations of ``linear_phase_mix``."""

import pytest
import torch
from torch import nn

from mmwave.ops import linear_phase_mix, phase_mix, use_backend
from tests.contracts import images

pytestmark = pytest.mark.usefixtures('two_threads')


def draw(n, h, w, c, taps=7, dtype=torch.float32):
    """Return a map, the merged layer, and both kernels."""
    tensors = (
        images(n, h, w, c),
        images(4 * c, c, seed=1) * 2 / c**0.5,
        images(4 * c, seed=2),
        images(c, 2, 1, taps, seed=3),
        images(c, 2, taps, 1, seed=4),
    )
    return [t.to(dtype) for t in tensors]


def exact(x, weight, bias, kernel_h, kernel_w):
    """Compute it in float64, with the channels in the ordinary order."""
    maps = torch.einsum('nhwi,oi->nohw', x.double(), weight.double()) + bias.double()[:, None, None]
    ordered = []
    for part in maps.chunk(4, dim=1):
        half = part.shape[1] // 2
        ordered.append(torch.stack([part[:, :half], part[:, half:]], dim=2).flatten(1, 2))
    p_h, p_w, a_h, a_w = ordered
    with use_backend('reference'):
        return phase_mix(
            a_h, p_h.clamp(min=0), a_w, p_w.clamp(min=0), kernel_h.double(), kernel_w.double()
        )


# Columns are processed by whole maps or by parts of them, rows a few at a time.
SHAPES = [(2, 7, 5, 32), (1, 1, 1, 32), (1, 20, 33, 64), (3, 14, 14, 96), (1, 300, 7, 128)]


@pytest.mark.parametrize('shape', SHAPES)
@pytest.mark.parametrize(
    ('name', 'dtype', 'bound'),
    [
        ('reference', torch.float32, 2e-6),
        ('torch', torch.float32, 2e-6),
        ('torch', torch.bfloat16, 1e-2),
        ('cpp', torch.float32, 2e-6),
        ('cpp', torch.bfloat16, 4e-3),
    ],
)
@torch.no_grad()
def test_accuracy_of_every_dtype(request, name, dtype, bound, shape):
    if name == 'cpp':
        request.getfixturevalue('multiplying' if dtype == torch.bfloat16 else 'kernels')
    tensors = draw(*shape, dtype=dtype)
    before = [t.clone() for t in tensors]
    with use_backend(name):
        got = linear_phase_mix(*tensors)
    for a, b in zip(got, exact(*tensors), strict=True):
        assert (a.shape, a.dtype) == (b.shape, dtype)
        assert (a.double() - b).norm() <= bound * b.norm()
    assert all(torch.equal(a, b) for a, b in zip(tensors, before, strict=True))


@pytest.mark.parametrize(('channels', 'taps'), [(6, 7), (32, 5)])
@torch.no_grad()
def test_shapes_that_the_fused_kernel_does_not_support(kernels, channels, taps):
    tensors = draw(2, 5, 6, channels, taps, dtype=torch.bfloat16)
    with use_backend('cpp'):
        got = linear_phase_mix(*tensors)
    for a, b in zip(got, exact(*tensors), strict=True):
        assert (a.double() - b).norm() <= 1e-2 * b.norm()


@torch.no_grad()
def test_the_fused_kernel_is_more_accurate(multiplying):
    tensors = draw(2, 9, 10, 64, dtype=torch.bfloat16)
    wanted, errors = exact(*tensors), {}
    for name in ('cpp', 'torch'):
        with use_backend(name):
            errors[name] = [
                (a.double() - b).norm()
                for a, b in zip(linear_phase_mix(*tensors), wanted, strict=True)
            ]
    # Amplitudes and phases are not rounded to bfloat16.
    assert all(a < b for a, b in zip(errors['cpp'][:2], errors['torch'][:2], strict=True))


@torch.no_grad()
def test_changed_weights_are_seen(multiplying):
    x, weight, bias, *kernels = draw(1, 4, 5, 32, dtype=torch.bfloat16)
    # Slices of one layer, as blocks have them.
    weight, bias = (nn.Parameter(torch.cat([t, t[:32]])) for t in (weight, bias))
    for _ in range(2):
        tensors = x, weight[:128], bias[:128], *kernels
        with use_backend('cpp'):
            got = linear_phase_mix(*tensors)
        for a, b in zip(got, exact(*tensors), strict=True):
            assert (a.double() - b).norm() <= 4e-3 * b.norm()
        weight.mul_(-1)
        bias.add_(1)


@torch.no_grad()
def test_nan_and_infinity(multiplying):
    x, weight, bias, *kernels = draw(1, 9, 9, 32, dtype=torch.bfloat16)
    for number in (float('nan'), float('inf')):
        x[0, 4, 4, 0] = number
        with use_backend('cpp'):
            h, w, _ = linear_phase_mix(x, weight, bias, *kernels)
        others = [0, 1, 2, 3, 5, 6, 7, 8]
        assert h[0, :, 4].isnan().any()
        assert w[0, :, :, 4].isnan().any()
        assert not h[0, :, others].isnan().any()
        assert not w[0, :, :, others].isnan().any()


def test_gradients_equal_the_references(kernels):
    tensors = draw(1, 5, 6, 32)
    found = []
    for name in ('auto', 'cpp', 'reference'):
        leaves = [t.clone().requires_grad_() for t in tensors]
        with use_backend(name):
            outputs = linear_phase_mix(*leaves)
        pulls = [images(*o.shape, seed=9) for o in outputs]
        found.append(torch.autograd.grad(outputs, leaves, pulls))
    for other in found[:2]:
        for a, b in zip(other, found[2], strict=True):
            assert (a - b).norm() <= 2e-6 * b.norm()


def test_reasons():
    tensors = draw(1, 5, 6, 32)
    with use_backend('torch'):
        with pytest.raises(RuntimeError, match='autograd is on'):
            linear_phase_mix(tensors[0].clone().requires_grad_(), *tensors[1:])
        with pytest.raises(RuntimeError, match='of one dtype'):
            linear_phase_mix(tensors[0].double(), *tensors[1:])
        with pytest.raises(RuntimeError, match='on the CPU'):
            linear_phase_mix(*(t.to('meta') for t in tensors))


def test_reasons_against_the_kernel(kernels):
    tensors = draw(1, 5, 6, 32)
    with use_backend('cpp'):
        with pytest.raises(RuntimeError, match=r'one dtype of torch\.float32, torch\.bfloat16'):
            linear_phase_mix(*(t.double() for t in tensors))
        with pytest.raises(RuntimeError, match='on the CPU'):
            linear_phase_mix(*(t.to('meta') for t in tensors))
        with (
            torch.autocast('cpu', torch.float16),
            pytest.raises(RuntimeError, match=r'autocast casts to torch\.float16'),
        ):
            linear_phase_mix(*tensors)


@torch.no_grad()
def test_under_autocast(kernels):
    tensors = draw(1, 5, 6, 32)
    with torch.autocast('cpu', torch.bfloat16):
        got = linear_phase_mix(*tensors)
    for a, b in zip(got, exact(*tensors), strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.double() - b).norm() <= 1e-2 * b.norm()


@pytest.mark.parametrize('shape', [(0, 5, 6, 32), (1, 0, 6, 32), (1, 5, 0, 32)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@torch.no_grad()
def test_empty_maps(kernels, shape, dtype):
    h, w, mean = linear_phase_mix(*draw(*shape, dtype=dtype))
    n, height, width, c = shape
    assert h.shape == w.shape == (n, c, height, width)
    assert mean.shape == (n, c)


@torch.no_grad()
def test_means_whose_sums_overflow_float16():
    x, weight, bias, *kernels = (t.half() for t in draw(1, 90, 90, 2))
    with use_backend('torch'):
        _, _, mean = linear_phase_mix(x, weight, bias + 20, *kernels)
    assert mean.isfinite().all()
    assert mean.abs().max() * 90 * 90 > torch.finfo(torch.half).max


def test_shapes_that_do_not_fit():
    x, weight, bias, *kernels = draw(1, 5, 6, 8)
    for wrong in ((x[0], weight, bias), (x, weight[:24], bias), (x, weight, bias[:8])):
        with pytest.raises(ValueError, match=r'expected x \(N, H, W, C\), weight \(4 C, C\)'):
            linear_phase_mix(*wrong, *kernels)
    for wrong in ((kernels[0][:4], kernels[1]), (kernels[0], kernels[1].expand(8, 2, 7, 7))):
        with pytest.raises(ValueError, match=r'has shape .*: expected \(8, 2, '):
            linear_phase_mix(x, weight, bias, *wrong)
    for taps, channels in ((4, 8), (7, 3)):
        with pytest.raises(ValueError, match=r'odd number of taps|even number of channels'):
            linear_phase_mix(*draw(1, 5, 6, channels, taps))
