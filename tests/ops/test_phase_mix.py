"""``phase_mix`` against sums written out position by position."""

import pytest
import torch

from mmwave.ops import phase_mix, use_backend
from mmwave.ops._phase_mix import phase_mix_reference
from tests.contracts import relative_error


def tensors(n, c, h, w, taps=7, dtype=torch.float64):
    generator = torch.Generator().manual_seed(h * 100 + w)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype).requires_grad_()

    maps = [draw(n, c, h, w) for _ in range(4)]
    return [*maps, draw(c, 2, 1, taps), draw(c, 2, taps, 1)]


def written_out(amplitude, phase, kernel, axis):
    """Output g at x: sum over taps t and j = 0, 1 of kernel[g, j, t] * part(2g + j)(x + t - reach).

    Channels below C are real parts a cos(theta), those from C on imaginary parts a sin(theta).
    """
    n, channels, height, width = amplitude.shape
    kernel = kernel.reshape(channels, 2, -1)
    reach = kernel.shape[2] // 2
    length = (height, width)[axis]
    lines = []
    for g in range(channels):
        line = []
        for position in range(length):
            acc = amplitude.new_zeros(n, (width, height)[axis])
            for j in range(2):
                stacked = 2 * g + j
                source, function = (
                    (stacked, torch.cos) if stacked < channels else (stacked - channels, torch.sin)
                )
                for t in range(kernel.shape[2]):
                    at = position + t - reach
                    if 0 <= at < length:
                        a, p = (m[:, source].select(axis + 1, at) for m in (amplitude, phase))
                        acc = acc + kernel[g, j, t] * a * function(p)
            line.append(acc)
        lines.append(torch.stack(line, dim=axis + 1))
    return torch.stack(lines, dim=1)


def even_odd(x):
    """Return (N, C, H, W) with its channels in the order 0, 2, 4, .., 1, 3, 5, .."""
    return torch.cat([x[:, 0::2], x[:, 1::2]], dim=1)


@pytest.mark.parametrize('backend', ['auto', 'reference'])
@pytest.mark.parametrize('shape', [(2, 4, 5, 9), (1, 3, 1, 1), (1, 2, 7, 1), (1, 5, 3, 8)])
def test_values_and_all_gradients(shape, backend):
    inputs = tensors(*shape)
    a_h, p_h, a_w, p_w, k_h, k_w = inputs
    h, w = written_out(a_h, p_h, k_h, axis=1), written_out(a_w, p_w, k_w, axis=0)
    wanted = h, w, (h + w).sum(dim=(2, 3)) / (shape[2] * shape[3])
    pull = [torch.randn_like(o) for o in wanted]
    forms = {False: inputs} | (
        {} if shape[1] % 2 else {True: [even_odd(m) for m in inputs[:4]] + inputs[4:]}
    )
    for split, given in forms.items():
        with use_backend(backend):
            got = phase_mix(*given, split=split)
        for a, b in zip(got, wanted, strict=True):
            assert a.shape == b.shape
            assert relative_error(a, b) < 1e-14
        grads = [torch.autograd.grad(o, inputs, pull, retain_graph=True) for o in (got, wanted)]
        for name, a, b in zip(('a_h', 'p_h', 'a_w', 'p_w', 'k_h', 'k_w'), *grads, strict=True):
            assert b.abs().max() > 0, name
            assert relative_error(a, b) < 1e-13, name


def test_gradcheck():
    assert torch.autograd.gradcheck(phase_mix, tensors(1, 2, 3, 4))


def test_other_numbers_of_taps():
    inputs = tensors(1, 2, 4, 5, taps=3)
    a_h, p_h, _, _, k_h, _ = inputs
    assert relative_error(phase_mix(*inputs)[0], written_out(a_h, p_h, k_h, axis=1)) < 1e-14


def test_not_contiguous_input():
    inputs = tensors(2, 4, 6, 6)
    strided = [t.transpose(2, 3) for t in inputs[:4]]
    got = phase_mix(*strided, *inputs[4:])
    wanted = phase_mix(*(t.contiguous() for t in strided), *inputs[4:])
    assert all(relative_error(a, b) < 1e-14 for a, b in zip(got, wanted, strict=True))


# A rounded input and weight: about 2 * 14 products, each off by half an ulp.
@pytest.mark.parametrize(
    ('dtype', 'bound'), [(torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)]
)
def test_lower_precision(dtype, bound):
    inputs = tensors(2, 8, 7, 63)
    got = phase_mix_reference(*(t.to(dtype) for t in inputs))
    wanted = phase_mix_reference(*(t.to(dtype).double() for t in inputs))
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype is dtype
        assert relative_error(a.double(), b) < bound


def test_shapes_that_do_not_fit_are_named():
    a_h, p_h, a_w, p_w, k_h, k_w = tensors(1, 4, 5, 6)
    with pytest.raises(ValueError, match=r'phase_w has shape \(1, 4, 5, 5\)'):
        phase_mix(a_h, p_h, a_w, p_w[..., 1:], k_h, k_w)
    with pytest.raises(
        ValueError, match=r'kernel_w has shape \(4, 2, 1, 7\): expected \(4, 2, 7, 1\)'
    ):
        phase_mix(a_h, p_h, a_w, p_w, k_h, k_h)
    with pytest.raises(ValueError, match='odd number of taps'):
        phase_mix(a_h, p_h, a_w, p_w, k_h[..., 1:], k_w[:, :, 1:])
