"""``linear`` by oneDNN against torch's own."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmwave.inspect.memory import saved_bytes
from mmwave.ops import _linear, linear, use_backend
from mmwave.ops._linear import linear_onednn, linear_reference
from tests.contracts import images
from tests.graphs import check_op, recorded

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason='torch is built without oneDNN'
)


def draw(*rows, inputs=24, outputs=40, dtype=torch.float32):
    """Return an input, a weight and a bias that need gradients."""
    tensors = (
        images(*rows, inputs),
        images(outputs, inputs, seed=1) / inputs**0.5,
        images(outputs, seed=2),
    )
    return [t.to(dtype).requires_grad_() for t in tensors]


def results(tensors, dtype, gelu=None):
    """Return the output, the gradients of all tensors, and second derivatives, in float64."""
    tensors = [t.detach().to(dtype).requires_grad_() for t in tensors]
    y = linear(*tensors, gelu=gelu)
    first = torch.autograd.grad(y, tensors, images(*y.shape, seed=3).to(y), create_graph=True)
    total = sum((g * images(*g.shape, seed=4).to(g)).sum() for g in first)
    second = torch.autograd.grad(total, tensors[:2])
    return [t.detach().double() for t in (y, *first, *second)]


def assert_as_accurate(got, plain, truth):
    """Assert an error of at most twice torch's own, and a rounding."""
    for a, b, wanted in zip(got, plain, truth, strict=True):
        assert (a - wanted).norm() <= 2 * (b - wanted).norm() + 1e-7 * wanted.norm()


@pytest.mark.parametrize('gelu', [None, 'none', 'tanh'])
@pytest.mark.parametrize(
    ('rows', 'sizes'), [((), (3, 5)), ((7,), (24, 40)), ((2, 3, 5), (40, 24)), ((64,), (1, 1))]
)
def test_as_accurate_as_torch(rows, sizes, gelu):
    tensors = draw(*rows, inputs=sizes[0], outputs=sizes[1])
    truth = results(tensors, torch.float64, gelu)
    with use_backend('reference'):
        plain = results(tensors, torch.float32, gelu)
    with use_backend('onednn'):
        assert_as_accurate(results(tensors, torch.float32, gelu), plain, truth)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('gelu', [None, 'none', 'tanh'])
@pytest.mark.parametrize('with_bias', [False, True])
def test_without_autograd(dtype, gelu, with_bias):
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip('this CPU does not support bfloat16')
    tensors = [t.detach().to(dtype) for t in draw(6, 9)][: 3 if with_bias else 2]
    truth = linear(*(t.double() for t in tensors), gelu=gelu)
    plain = linear_reference(*tensors, gelu=gelu).double()
    with use_backend('onednn'):
        got = linear(*tensors, gelu=gelu)
    assert got.dtype == dtype
    assert_as_accurate([got.double()], [plain], [truth])


def layouts():
    x, weight, bias = (t.detach() for t in draw(12, inputs=16, outputs=16))
    return {
        'transposed input': (x.t().contiguous().t(), weight, bias),
        'transposed weight': (x, weight.t().contiguous().t(), bias),
        'both transposed': (x.t().contiguous().t(), weight.t().contiguous().t(), bias),
        'every second row': (images(24, 16)[::2], weight, bias),
        'part of a row': (images(12, 40)[:, 3:19], images(16, 20)[:, 2:18], images(32)[::2]),
        'one row expanded': (images(1, 16).expand(12, 16), weight, bias),
    }


@pytest.mark.parametrize('layout', layouts())
def test_any_layout(layout):
    tensors = layouts()[layout]
    truth = results(tensors, torch.float64)
    plain = results([t.contiguous() for t in tensors], torch.float32)
    tensors = [t.requires_grad_() for t in tensors]
    with use_backend('onednn'):
        y = linear(*tensors)
        # The gradient of a sum is one expanded value, with strides of zero.
        summed = torch.autograd.grad(linear(*tensors).sum(), tensors)
        with torch.no_grad():
            without_autograd = linear(*tensors)
    assert_as_accurate([y.detach().double()], plain[:1], truth[:1])
    assert_as_accurate([without_autograd.double()], plain[:1], truth[:1])
    x, weight, _ = tensors
    assert torch.allclose(summed[0], weight.sum(0).expand_as(x), atol=1e-5)
    assert torch.allclose(summed[1], x.sum(0).expand_as(weight), atol=1e-5)


@pytest.mark.parametrize('needed', [(0,), (1,), (2,), (0, 2)])
def test_only_the_gradients_that_are_needed(needed):
    tensors = [t.detach() for t in draw(5)]
    for i in needed:
        tensors[i].requires_grad_()
    wanted = torch.autograd.grad(F.linear(*tensors).square().sum(), [tensors[i] for i in needed])
    with use_backend('onednn'):
        y = linear(*tensors)
    got = torch.autograd.grad(y.square().sum(), [tensors[i] for i in needed])
    for a, b in zip(got, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)


def test_saves_no_more_than_torch():
    tensors = draw(50)
    assert saved_bytes(lambda: linear_onednn(*tensors)) == saved_bytes(lambda: F.linear(*tensors))


def test_torch_computes_what_onednn_does_not_support():
    x, weight, bias = (t.detach() for t in draw(5))
    assert linear_onednn.unsupported(x, weight, bias) == ''
    for tensors, reason in (
        ((x.double(), weight.double()), 'it supports float32 or bfloat16, not torch.float64'),
        ((x, weight.bfloat16()), 'not torch.float32, torch.bfloat16'),
        ((x.to('meta'), weight), 'it runs on the CPU, not on meta'),
        ((x[:0], weight), 'a tensor is empty'),
        ((x.bfloat16(), weight.bfloat16().requires_grad_()), 'no autograd or compile'),
    ):
        assert reason in linear_onednn.unsupported(*tensors)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        assert linear(x, weight).dtype == torch.bfloat16
    with torch.backends.mkldnn.flags(enabled=False):
        assert 'switched off' in linear_onednn.unsupported(x, weight)
    assert linear(x[:0], weight, bias).shape == (0, 40)
    with use_backend('onednn'), pytest.raises(RuntimeError, match=r'not torch\.float64'):
        linear(x.double(), weight.double())


def test_counters_see_the_product():
    x, weight, bias = draw(5)
    with FlopCounterMode(display=False) as counter:
        linear(x, weight, bias)
    assert counter.get_total_flops() == 2 * 5 * 24 * 40


def test_function_transforms():
    tensors = [t.detach() for t in draw(5)]

    def loss(*tensors):
        return linear(*tensors).square().sum()

    got = torch.func.grad(loss, argnums=(0, 1, 2))(*tensors)
    leaves = [t.requires_grad_() for t in tensors]
    for a, b in zip(got, torch.autograd.grad(loss(*leaves), leaves), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('gelu', [None, 'none'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_one_custom_op_in_a_graph(dtype, gelu):
    tensors = [t.detach() for t in draw(5, dtype=dtype)]
    got, nodes = recorded(lambda *t: linear(*t, gelu=gelu), *tensors, open_axes=(0,))
    assert ('mmwave.linear' in nodes) == (dtype == torch.float32)
    if dtype == torch.float32:
        assert not any('gelu' in node for node in nodes)  # it is fused with the product
        assert torch.equal(got, linear_onednn(*tensors, gelu=gelu))


def test_exported_as_torchs_operator():
    tensors = [t.detach() for t in draw(5)]

    class Module(torch.nn.Module):
        def forward(self, x):
            return linear(x, *tensors[1:])

    graph = torch.export.export(Module(), (tensors[0],)).graph
    targets = [str(node.target) for node in graph.nodes]
    assert 'aten.linear.default' in targets
    assert not any('mmwave' in target for target in targets)


@pytest.mark.parametrize('gelu', [None, 'tanh'])
def test_gradients_in_a_graph(gelu):
    tensors = draw(6, 9)
    truth, plain = results(tensors, torch.float64, gelu), results(tensors, torch.float32, gelu)
    y, nodes = recorded(lambda *t: linear(*t, gelu=gelu), *tensors, open_axes=(0,))
    assert 'mmwave.linear' in nodes
    got = [y, *torch.autograd.grad(y, tensors, images(*y.shape, seed=3))]
    assert_as_accurate([t.detach().double() for t in got], plain[:4], truth[:4])


@pytest.mark.parametrize('rows', [(), (0,), (7,), (2, 3, 5)])
@pytest.mark.parametrize('with_bias', [False, True])
def test_the_custom_op_is_registered_correctly(rows, with_bias):
    x, weight, bias = draw(*rows)
    check_op(torch.ops.mmwave.linear.default, x, weight, bias if with_bias else None, None, False)
    x, weight = x.detach(), weight.detach().t().contiguous().t()
    check_op(torch.ops.mmwave.linear.default, x, weight, None, 'none', True)


@pytest.mark.parametrize(
    ('x', 'weight', 'bias'),
    [((), (3, 4), None), ((2, 3), (3, 4), None), ((2, 4), (1, 3, 4), None), ((2, 4), (3, 4), (4,))],
)
def test_shapes_that_do_not_fit(x, weight, bias):
    tensors = [None if shape is None else torch.zeros(shape) for shape in (x, weight, bias)]
    with pytest.raises(ValueError, match=r'expected x \(\.\.\., C_in\)'):
        linear(*tensors)


@torch.no_grad()
def test_small_products_are_torchs_own(monkeypatch):
    x, weight, bias = (t.detach() for t in draw(5))
    calls = []
    monkeypatch.setitem(
        _linear._IMPLEMENTATIONS,
        'onednn',
        lambda *tensors, **settings: calls.append(tensors) or linear_reference(*tensors),
    )
    monkeypatch.setattr(_linear, 'MIN_ONEDNN_MACS', x.numel() * len(weight) + 1)
    linear(x, weight, bias)
    assert not calls
    with use_backend('onednn'):
        linear(x, weight, bias)
    monkeypatch.setattr(_linear, 'MIN_ONEDNN_MACS', x.numel() * len(weight))
    linear(x, weight, bias)
    assert len(calls) == 2
