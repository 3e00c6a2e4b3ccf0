"""``spatial_fc`` against the release's implementation, a grouped 1 x 1 convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmwave.inspect.memory import saved_bytes
from mmwave.ops import spatial_fc, use_backend
from mmwave.ops._spatial_fc import onednn
from tests.contracts import images, relative_error
from tests.graphs import check_op, recorded


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
    # Rounding of the inputs and of the output, each half an ulp.
    assert relative_error(got, spatial_fc(x, weight, bias)) < 3 * torch.finfo(dtype).eps


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
@pytest.mark.parametrize('sets', [1, 2])
def test_counters_see_a_product_with_the_same_result(sets):
    x, weight, bias = images(2, 4, 5), images(sets, 3, 5, seed=1), images(sets, 3, seed=2)
    traced = torch.jit.trace(spatial_fc, (x, weight, bias))
    kinds = {node.kind() for node in traced.inlined_graph.nodes()}
    assert 'aten::bmm' in kinds
    assert 'aten::baddbmm' not in kinds
    assert relative_error(traced(x, weight, bias), spatial_fc(x, weight, bias)) < 1e-6
    with torch.autocast('cpu', torch.bfloat16):
        wanted = spatial_fc(x, weight, bias)
        with FlopCounterMode(display=False) as counter:
            got = spatial_fc(x, weight, bias)
    assert got.dtype == wanted.dtype == torch.bfloat16
    assert counter.get_total_flops() == 2 * 2 * 4 * 5 * 3


ONEDNN = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason='torch is built without oneDNN'
)
SETS = {'one': 1, 'one, contiguous channels': 1, 'some': 3, 'as many as channels': 6}


def draw(kind, n=2, channels=6, positions=5, outputs=7):
    """Return inputs in the layouts for which products are computed in different ways."""
    x = images(n, channels, positions)
    if 'contiguous' in kind:
        x = images(n, positions, channels).transpose(1, 2)
    elif 'as many' in kind:
        x = images(channels, n, positions).transpose(0, 1)
    sets = SETS[kind]
    return x, images(sets, outputs, positions, seed=1), images(sets, outputs, seed=2)


def results(tensors, dtype):
    tensors = [t.detach().to(dtype).requires_grad_() for t in tensors]
    y = spatial_fc(*tensors)
    first = torch.autograd.grad(y, tensors, images(*y.shape, seed=3).to(y), create_graph=True)
    total = sum((g * images(*g.shape, seed=4).to(g)).sum() for g in first)
    return [t.detach() for t in (y, *first, *torch.autograd.grad(total, tensors[:2]))]


@ONEDNN
@pytest.mark.parametrize('with_bias', [False, True])
@pytest.mark.parametrize('kind', SETS)
def test_onednn_in_values_and_gradients(kind, with_bias, monkeypatch):
    monkeypatch.setattr(onednn, 'MIN_ONEDNN_MACS', 0)
    tensors = draw(kind)[: 3 if with_bias else 2]
    wanted = results(tensors, torch.float64)
    with use_backend('onednn'):
        got = results(tensors, torch.float32)
        with torch.no_grad():
            without_autograd = spatial_fc(*tensors)
    for a, b in zip((*got, without_autograd), (*wanted, wanted[0]), strict=True):
        assert relative_error(a.double(), b) < 1e-6


@ONEDNN
@pytest.mark.parametrize('kind', SETS)
def test_onednn_saves_only_its_input(kind, monkeypatch):
    monkeypatch.setattr(onednn, 'MIN_ONEDNN_MACS', 0)
    x, weight, bias = (t.requires_grad_() for t in draw(kind))
    with use_backend('onednn'):
        kept = saved_bytes(lambda: spatial_fc(x, weight, bias))
    with use_backend('reference'):
        assert kept <= saved_bytes(lambda: spatial_fc(x, weight, bias))


@ONEDNN
@pytest.mark.parametrize('minimum', [0, onednn.MIN_ONEDNN_MACS])
@pytest.mark.parametrize('with_bias', [False, True])
@pytest.mark.parametrize('kind', SETS)
def test_one_custom_op_in_a_graph(kind, with_bias, minimum, monkeypatch):
    monkeypatch.setattr(onednn, 'MIN_ONEDNN_MACS', minimum)
    tensors = [t.requires_grad_() for t in draw(kind)[: 3 if with_bias else 2]]
    wanted = results(tensors, torch.float64)[: len(tensors) + 1]
    y, nodes = recorded(spatial_fc, *tensors, open_axes=(0,))
    assert 'mmwave.spatial_fc' in nodes
    got = [y, *torch.autograd.grad(y, tensors, images(*y.shape, seed=3))]
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a.double(), b) < 1e-6


@ONEDNN
@pytest.mark.parametrize('minimum', [0, onednn.MIN_ONEDNN_MACS])
@pytest.mark.parametrize('kind', SETS)
def test_custom_ops_are_registered_correctly(kind, minimum, monkeypatch):
    monkeypatch.setattr(onednn, 'MIN_ONEDNN_MACS', minimum)
    x, weight, bias = (t.requires_grad_() for t in draw(kind))
    ops = torch.ops.mmwave
    check_op(ops.spatial_fc.default, x, weight, bias)
    x, weight = x.detach(), weight.detach()
    check_op(ops.spatial_fc.default, x, weight, None)
    check_op(ops.spatial_fc_backward.default, ops.spatial_fc(x, weight, None), x, weight)


@ONEDNN
def test_onednn_supports_large_products_of_float32():
    x, weight = torch.zeros(8, 64, 196), torch.zeros(1, 196, 196)
    assert onednn.unsupported(x, weight) == ''
    assert 'under' in onednn.unsupported(x[:1, :4], weight)
    assert 'bfloat16' in onednn.unsupported(x.bfloat16(), weight.bfloat16())


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
