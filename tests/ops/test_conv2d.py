"""``conv2d``: torch's own, and a custom op in graphs with dynamic sizes."""

import pytest
import torch
import torch.nn.functional as F

from mmwave.ops import conv2d
from tests.contracts import images, relative_error
from tests.graphs import check_op, recorded

# Channels in and out, kernel, stride, padding, groups: a stem, a downsample, depthwise ones.
CASES = {
    'stem': (3, 8, (7, 7), (4, 4), (2, 2), 1),
    'downsample': (8, 6, (3, 3), (2, 2), (1, 1), 1),
    'patches': (4, 5, (2, 2), (2, 2), (0, 0), 1),
    'depthwise': (6, 6, (3, 3), (1, 1), (1, 1), 6),
    'widening': (4, 8, (3, 3), (2, 2), (1, 1), 4),
    'along a row': (8, 4, (1, 7), (1, 1), (0, 3), 4),
}
LAYOUTS = {'NCHW': torch.contiguous_format, 'NHWC': torch.channels_last}
OPS = torch.ops.mmwave


def draw(case, layout='NCHW', size=(13, 18), dtype=torch.float64):
    """Return inputs that need gradients, and the settings."""
    inputs, outputs, kernel, *settings = CASES[case]
    x = images(2, inputs, *size).to(dtype).contiguous(memory_format=LAYOUTS[layout])
    weight = images(outputs, inputs // settings[-1], *kernel, seed=1).to(dtype)
    bias = images(outputs, seed=2).to(dtype)
    return [t.requires_grad_() for t in (x, weight, bias)], settings


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('case', CASES)
def test_one_graph_for_all_sizes(case, layout):
    torch.compiler.reset()
    (_, weight, bias), settings = draw(case)
    graph = torch.compile(
        lambda x: conv2d(x, weight, bias, *settings), backend='aot_eager', fullgraph=True
    )
    for size in ((13, 18), (16, 9), (40, 21)):
        (x, *_), _ = draw(case, layout, size)
        wanted = F.conv2d(x, weight, bias, *settings[:2], groups=settings[2])
        pull = images(*wanted.shape, seed=3).to(wanted)
        given = x.detach().requires_grad_()
        torch._dynamo.mark_dynamic(given, (2, 3))
        with torch.compiler.set_stance('default' if size == (13, 18) else 'fail_on_recompile'):
            got = graph(given)
        assert got.stride() == wanted.stride()
        assert relative_error(got, wanted) < 1e-14
        pairs = (
            torch.autograd.grad(y, (i, weight, bias), pull) for y, i in ((got, given), (wanted, x))
        )
        for a, b in zip(*pairs, strict=True):
            assert relative_error(a, b) < 1e-13


def test_a_custom_op_for_dynamic_sizes_only():
    (x, weight, bias), settings = draw('stem')
    for open_axes, custom in (((), False), ((2, 3), True), ((0,), True)):
        _, nodes = recorded(lambda *t: conv2d(*t, *settings), x, weight, bias, open_axes=open_axes)
        assert ('mmwave.conv2d' in nodes) == custom
        x = x.detach().clone()


def test_exported_as_torchs_operator():
    (x, weight, bias), settings = draw('stem')

    class Module(torch.nn.Module):
        def forward(self, x):
            return conv2d(x, weight.detach(), bias.detach(), *settings)

    sides = {2: torch.export.Dim('h', min=8), 3: torch.export.Dim('w', min=8)}
    graph = torch.export.export(Module(), (x.detach(),), dynamic_shapes=(sides,)).graph
    targets = [str(node.target) for node in graph.nodes]
    assert any('aten.conv' in target for target in targets)
    assert not any('mmwave' in target for target in targets)


@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('with_bias', [False, True])
def test_custom_ops_are_registered_correctly(case, layout, with_bias):
    (x, weight, bias), (stride, padding, groups) = draw(case, layout, dtype=torch.float32)
    settings = (list(stride), list(padding), groups)
    check_op(OPS.conv2d.default, x, weight, bias if with_bias else None, *settings)
    y = OPS.conv2d(x, weight, None, *settings).detach()
    x, weight = x.detach(), weight.detach()
    for needed in ([True, True, with_bias], [False, True, False], [True, False, False]):
        check_op(OPS.conv2d_backward.default, y, x, weight, *settings, needed)


@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_cast_by_autocast(backend):
    (x, weight, bias), settings = draw('downsample', dtype=torch.float32)
    x = x.detach().requires_grad_()
    torch._dynamo.mark_dynamic(x, (2, 3))
    torch.compiler.reset()
    graph = torch.compile(lambda *t: conv2d(*t, *settings), backend=backend, fullgraph=True)
    found = []
    for run, given in ((graph, x), (lambda *t: conv2d(*t, *settings), x.detach().requires_grad_())):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            y = run(given, weight, bias)
        found.append((y, *torch.autograd.grad(y.float().square().sum(), (given, weight, bias))))
    assert found[0][0].dtype == torch.bfloat16
    assert all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_only_the_gradients_that_are_needed():
    (x, weight, bias), settings = draw('downsample')
    x = x.detach()  # an image needs no gradient
    torch._dynamo.mark_dynamic(x, (2, 3))
    torch.compiler.reset()
    got = torch.compile(lambda *t: conv2d(*t, *settings), backend='aot_eager')(x, weight, bias)
    wanted = conv2d(x.clone(), weight, bias, *settings)
    for a, b in zip(
        *(torch.autograd.grad(y.square().sum(), (weight, bias)) for y in (got, wanted)), strict=True
    ):
        assert relative_error(a, b) < 1e-13
