"""``axial_sample`` against its formula, position by position."""

import math

import pytest
import torch
from torch import nn

from mmwave.ops import axial_sample, extension, use_backend
from mmwave.ops._axial_sample import axial_sample_reference, rows
from tests.contracts import images
from tests.graphs import check_op, recorded

BACKENDS = ('reference', 'torch', 'cpp')
NAMES = ('result', 'x', 'offsets')
# Channels and groups of them; sides 1, 7 and 63.
SHAPES = [(2, 4, 2, 7, 3), (1, 1, 1, 1, 1), (1, 3, 3, 7, 63), (2, 6, 1, 63, 1), (1, 24, 2, 1, 7)]


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == 'cpp':
        request.getfixturevalue('kernels')
    with use_backend(request.param):
        yield request.param


def cases(*names):
    """Return backends with the dtypes that they support."""
    both = [('torch', d) for d in (torch.float32, torch.bfloat16, torch.float16)]
    both += [('cpp', d) for d in extension.DTYPES]
    return [case for case in both if case[0] in names]


def written_out(x, offsets, dim):
    """The two neighbours of every place, one after the other."""
    n, c, h, w = x.shape
    size, share = x.shape[dim], c // offsets.shape[1]
    found = []
    for i in range(n):
        for k in range(c):
            for row in range(h):
                for column in range(w):
                    offset = offsets[i, k // share, row, column]
                    place = (row if dim == 2 else column) + offset.item()
                    total = offset * 0
                    if math.isfinite(place):
                        lower = math.floor(place)  # a number of any length
                        fraction = (row if dim == 2 else column) + offset - float(lower)
                        for at, weight in ((lower, 1 - fraction), (lower + 1, fraction)):
                            if 0 <= at < size:
                                spot = (at, column) if dim == 2 else (row, at)
                                total = total + weight * x[i, k][spot]
                    found.append(total)
    return torch.stack(found).view(n, c, h, w)


def draw(n, c, groups, h, w, kind='any'):
    """A map and a gradient of the result; offsets of one kind."""
    x, pull = images(n, c, h, w), images(n, c, h, w, seed=1)
    offsets = 2 * images(n, groups, h, w, seed=2)
    if kind == 'whole':
        offsets = offsets.round()
    elif kind == 'borders':  # places from one position before the map to one behind it
        target = images(n, groups, h, w, seed=3)
        ends = torch.tensor([-1.0, -0.5, 0.0, 1.0, -2.0])[(target.abs() * 9).long() % 5]
        behind = torch.where(target > 0, max(h, w), 0)
        offsets = ends + behind - torch.arange(w)
    elif kind == 'far':
        magnitude = images(n, groups, h, w, seed=4).abs().mul(5).round()
        offsets = (offsets * 10**magnitude).clamp(-3e4, 3e4)
    return x, offsets, pull


def layouts(x):
    """The same map with channels last, first, and in slices of wider maps."""
    yield x.clone(memory_format=torch.channels_last)
    yield x.contiguous()
    wider = x.new_full((x.shape[0], x.shape[2], x.shape[3], x.shape[1] + 3), float('nan'))
    wider[..., 1:-2] = x.permute(0, 2, 3, 1)
    yield wider[..., 1:-2].permute(0, 3, 1, 2)
    yield torch.cat([x, x], dim=3)[..., : x.shape[3]]


def computed(function, x, offsets, pull, dim):
    """Return the result and the gradients, by name, in float64."""
    leaves = [t.detach().requires_grad_() for t in (x, offsets)]
    result = function(*leaves, dim)
    assert result.dtype == x.dtype
    found = (result.detach(), *torch.autograd.grad(result, leaves, pull, materialize_grads=True))
    return {name: t.double() for name, t in zip(NAMES, found, strict=True)}


@pytest.mark.parametrize('dim', [2, 3])
@pytest.mark.parametrize('kind', ['any', 'whole', 'borders', 'far'])
@pytest.mark.parametrize('shape', SHAPES, ids=str)
@pytest.mark.parametrize('name', ['reference', 'torch'])
def test_values_and_gradients(name, shape, kind, dim):
    tensors = [t.double() for t in draw(*shape, kind)]
    wanted = computed(written_out, *tensors, dim)
    x, offsets, pull = tensors
    for source, moved, given in zip(*map(layouts, (x, offsets, pull)), strict=True):
        with use_backend(name):
            got = computed(axial_sample, source, moved, given, dim)
        for key, value in wanted.items():
            # Far places are rounded in another order.
            torch.testing.assert_close(got[key], value, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('dim', [2, 3])
@pytest.mark.parametrize('kind', ['any', 'whole', 'borders', 'far'])
@pytest.mark.parametrize(('name', 'dtype'), cases('torch', 'cpp'))
def test_at_most_twice_the_error_of_the_reference(request, name, dtype, kind, dim):
    if name == 'cpp':
        request.getfixturevalue('kernels')
    # Groups of 1, 2, 4, 6, 8 and 16 channels.
    for shape in (
        (2, 4, 4, 7, 3),
        (1, 6, 3, 9, 5),
        (1, 8, 2, 7, 63),
        (2, 12, 2, 5, 4),
        (1, 64, 8, 6, 5),
        (1, 16, 1, 63, 2),
        (2, 1, 1, 1, 1),
    ):
        for offsets_dtype in {dtype, torch.float32}:
            x, offsets, pull = draw(*shape, kind)
            x, pull, offsets = x.to(dtype), pull.to(dtype), offsets.to(offsets_dtype)
            truth = computed(
                axial_sample_reference, x.double(), offsets.double(), pull.double(), dim
            )
            for k, source in enumerate(layouts(x)):
                if name == 'cpp' and source.stride(1) != 1:
                    continue
                moved, given = ([*layouts(t)][(k + 1) % 4] for t in (offsets, pull))
                plain = computed(axial_sample_reference, source, moved, given, dim)
                with use_backend(name):
                    got = computed(axial_sample, source, moved, given, dim)
                for key, value in truth.items():
                    eps = torch.finfo(dtype).eps
                    allowed = 2 * (plain[key] - value).norm() + eps * value.norm()
                    assert (got[key] - value).norm() <= allowed, (shape, offsets_dtype, key)


@pytest.mark.parametrize('dim', [2, 3])
def test_torchvision(backend, dim):
    """The published form: offsets of both axes for every channel, and a product."""
    deform_conv2d = pytest.importorskip('torchvision').ops.deform_conv2d
    dtype = torch.float32 if backend == 'cpp' else torch.float64
    x, offsets, pull = (t.to(dtype) for t in draw(2, 8, 4, 7, 9))
    x = x.to(memory_format=torch.channels_last)
    weight = (images(8, 8, seed=5) / 8**0.5).to(dtype)

    def published(x, offsets, dim):
        moved = offsets.repeat_interleave(2, 1)
        pair = [moved, torch.zeros_like(moved)]
        both = torch.stack(pair if dim == 2 else pair[::-1], 2).flatten(1, 2)
        return deform_conv2d(x, both, weight[:, :, None, None])

    def ours(x, offsets, dim):
        return torch.einsum('oc,nchw->nohw', weight, axial_sample(x, offsets, dim))

    wanted = computed(published, x, offsets, pull, dim)
    got = computed(ours, x, offsets, pull, dim)
    for key, value in wanted.items():
        assert (got[key] - value).norm() <= 10 * torch.finfo(dtype).eps * value.norm(), key


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('kind', ['any', 'borders', 'far'])
@pytest.mark.parametrize('dim', [2, 3])
def test_nan_and_infinity_of_the_map_stay_where_they_are_read(backend, value, kind, dim):
    x, offsets, pull = draw(1, 4, 2, 6, 6, kind)
    # The first and last positions are where an index from outside might be moved to.
    for place in ((0, 0), (2, 3), (5, 5)):
        broken = x.clone(memory_format=torch.channels_last)
        broken[0, 1][place] = value
        got = computed(axial_sample, broken, offsets, pull, dim)
        wanted = computed(written_out, broken, offsets, pull, dim)
        for key in NAMES:
            assert torch.equal(got[key].isfinite(), wanted[key].isfinite()), key
        assert torch.equal(got['result'].isnan(), wanted['result'].isnan())


@pytest.mark.parametrize('value', [float('nan'), float('inf'), -float('inf')])
@pytest.mark.parametrize('dim', [2, 3])
def test_offsets_that_are_not_finite(backend, value, dim):
    """The positions that they move are NaN, and nothing else is, nor any gradient of the map."""
    x, offsets, pull = draw(1, 4, 2, 5, 6)
    x, offsets = x.to(memory_format=torch.channels_last), offsets.clone()
    offsets[0, 1, 2, 3] = value
    got = computed(axial_sample, x, offsets, pull, dim)
    assert got['result'].isnan().nonzero().tolist() == [[0, 2, 2, 3], [0, 3, 2, 3]]
    assert got['x'].isfinite().all()
    assert got['offsets'].isfinite().all()


@pytest.mark.parametrize('dim', [2, 3])
def test_long_lines_in_bfloat16(backend, dim):
    """Places are not rounded to the eight bits of the offsets."""
    x = images(*((1, 2, 700, 1) if dim == 2 else (1, 2, 1, 700))).bfloat16()
    x = x.to(memory_format=torch.channels_last)
    got = axial_sample(x, torch.ones_like(x[:, :1]), dim)
    assert torch.equal(got.narrow(dim, 0, 699), x.narrow(dim, 1, 699))


@pytest.mark.parametrize('dim', [2, 3])
@pytest.mark.parametrize('name', ['reference', 'torch'])
def test_first_and_second_derivatives(name, dim):
    x, offsets, _ = draw(1, 4, 2, 3, 4)
    # Far from whole places, where there is no derivative.
    offsets = offsets.floor() + 0.25 + 0.5 * torch.rand_like(offsets)
    leaves = [t.double().requires_grad_() for t in (x, offsets)]
    with use_backend(name):
        assert torch.autograd.gradcheck(lambda *t: axial_sample(*t, dim), leaves)
        assert torch.autograd.gradgradcheck(lambda *t: axial_sample(*t, dim), leaves)


def test_second_derivatives_of_the_kernel(kernels):
    x, offsets, pull = draw(1, 4, 2, 3, 4)
    x = x.to(memory_format=torch.channels_last)
    found = []
    for name in ('reference', 'cpp'):
        leaves = [t.clone().requires_grad_() for t in (x, offsets)]
        with use_backend(name):
            result = axial_sample(*leaves, 2)
            first = torch.autograd.grad(result, leaves, pull, create_graph=True)
            second = torch.autograd.grad(sum(t.square().sum() for t in first), leaves)
        found.append([t.detach() for t in (*first, *second)])
    for got, wanted in zip(*found, strict=True):
        assert (got - wanted).norm() <= 1e-6 * wanted.norm()


def test_one_gradient_alone(backend):
    x, offsets, pull = draw(1, 4, 2, 3, 4)
    x = x.to(memory_format=torch.channels_last)
    both = computed(axial_sample, x, offsets, pull, 3)
    for k, key in ((0, 'x'), (1, 'offsets')):
        leaves = [x.clone(), offsets.clone()]
        leaves[k].requires_grad_()
        (got,) = torch.autograd.grad(axial_sample(*leaves, 3), leaves[k], pull)
        assert torch.equal(got.double(), both[key])


def test_the_gradient_of_a_sum(backend):
    """Autograd passes a gradient without memory of its own."""
    x, offsets, pull = draw(1, 4, 2, 3, 4)
    x = x.to(memory_format=torch.channels_last)
    wanted = computed(axial_sample_reference, x, offsets, torch.ones_like(pull), 2)
    got = computed(axial_sample, x, offsets, torch.ones(()).expand(pull.shape), 2)
    for key in NAMES:
        assert (got[key] - wanted[key]).norm() <= 1e-6 * wanted[key].norm()


@pytest.mark.parametrize('dim', [2, 3])
def test_two_threads_compute_the_same_every_time(backend, two_threads, dim, monkeypatch):
    """Tasks and parts are several, also of one image."""
    monkeypatch.setattr(rows, 'CPU_CHUNK', 3000)
    for shape in ((3, 16, 4, 9, 8), (1, 64, 32, 31, 33)):
        x, offsets, pull = draw(*shape)
        x = x.to(memory_format=torch.channels_last)
        wanted = computed(axial_sample_reference, x, offsets, pull, dim)
        runs = [computed(axial_sample, x, offsets, pull, dim) for _ in range(3)]
        for key in NAMES:
            assert (runs[0][key] - wanted[key]).norm() <= 1e-6 * wanted[key].norm()
            assert all(torch.equal(run[key], runs[0][key]) for run in runs[1:])


def test_empty_batch(backend):
    x = torch.zeros(0, 6, 4, 5).to(memory_format=torch.channels_last)
    found = computed(axial_sample, x, torch.zeros(0, 3, 4, 5), x, 2)
    assert [t.shape[0] for t in found.values()] == [0, 0, 0]


def test_errors_name_the_values():
    x, offsets, _ = draw(2, 6, 3, 4, 5)
    for wrong in (offsets[:, :, :3], offsets[0], offsets[:1], offsets.repeat(1, 2, 1, 1)[:, :4]):
        shown = ', '.join(map(str, wrong.shape))
        with pytest.raises(ValueError, match=rf'got \(2, 6, 4, 5\) and \({shown}\)'):
            axial_sample(x, wrong, 2)
    with pytest.raises(ValueError, match='dim=-1: expected 2, the height, or 3, the width'):
        axial_sample(x, offsets, -1)


def test_reasons_against_the_kernel(kernels):
    x, offsets, _ = draw(2, 6, 3, 4, 5)
    last = x.to(memory_format=torch.channels_last)
    cases = {
        'supports torch.float32, torch.bfloat16': (last.half(), offsets),
        'supports torch.float32': (last, offsets.double()),
        'must be contiguous': (x, offsets),
        'on the CPU': (last.to('meta'), offsets.to('meta')),
    }
    for reason, tensors in cases.items():
        with use_backend('cpp'), pytest.raises(RuntimeError, match=reason):
            axial_sample(*tensors, 2)
        assert axial_sample(*tensors, 2).shape == x.shape


def test_transforms(kernels):
    """They see the definition, which they can differentiate."""
    x, offsets, _ = draw(3, 6, 3, 4, 5)
    wanted = axial_sample_reference(x, offsets, 3)
    one = lambda x, o: axial_sample(x[None], o[None], 3)[0]  # noqa: E731
    assert torch.equal(torch.func.vmap(one)(x, offsets), wanted)
    _, moved = torch.func.jvp(lambda x: axial_sample(x, offsets, 3), (x,), (x,))
    assert torch.allclose(moved, wanted)
    for name in ('torch', 'cpp'):
        with use_backend(name), pytest.raises(RuntimeError, match='transform'):
            torch.func.vmap(one)(x.to(memory_format=torch.channels_last), offsets)


@pytest.mark.parametrize('dim', [2, 3])
def test_operators_are_registered_correctly(kernels, dim):
    x, offsets, _ = draw(2, 6, 3, 4, 5)
    ops = torch.ops.mmwave_cpp
    for source, moved in zip(layouts(x), layouts(offsets), strict=True):
        if source.stride(1) != 1:
            continue
        leaves = [t.detach().requires_grad_() for t in (source, moved)]
        check_op(ops.axial_sample.default, *leaves, dim)
        check_op(ops.axial_sample_backward.default, source, source, moved, dim)


def test_one_node_in_a_graph(kernels):
    x = draw(2, 6, 3, 4, 5)[0].to(memory_format=torch.channels_last)
    got, nodes = recorded(lambda x: axial_sample(x, 2 * x[:, :3], 3), x, open_axes=(2, 3))
    assert (got - axial_sample_reference(x, 2 * x[:, :3], 3)).abs().max() <= 1e-6
    assert [n for n in nodes if 'sample' in n] == ['mmwave_cpp.axial_sample']


@pytest.mark.parametrize('dim', [2, 3])
def test_a_graph_of_any_size_without_kernels(dim):
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(
        lambda *t: axial_sample(*t, dim), backend=counter, dynamic=True, fullgraph=True
    )
    for shape in ((2, 6, 3, 4, 5), (3, 6, 3, 7, 9), (2, 6, 3, 8, 3)):
        x, offsets, _ = draw(*shape)
        x = x.to(memory_format=torch.channels_last)
        with extension.without_kernels():
            assert torch.equal(compiled(x, offsets), axial_sample_reference(x, offsets, dim))
    assert counter.frame_count == 1


class Samples(nn.Module):
    def forward(self, x):
        offsets = 3 * x[:, :2].tanh()
        return axial_sample(x, offsets, 2) + axial_sample(x, offsets, 3)


@pytest.mark.export
def test_export(kernels):
    x, side = images(2, 6, 8, 9), torch.export.Dim.DYNAMIC
    program = torch.export.export(Samples(), (x,), dynamic_shapes=({0: side, 2: side, 3: side},))
    assert 'mmwave' not in str(program.graph)
    for other in (x, images(1, 6, 5, 12)):
        with use_backend('reference'):
            assert torch.equal(program.module()(other), Samples()(other))


@pytest.mark.export
def test_onnx(tmp_path):
    pytest.importorskip('onnxscript')
    onnxruntime = pytest.importorskip('onnxruntime')
    x, side = images(2, 6, 8, 9), torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        Samples(), (x,), dynamo=True, dynamic_shapes=({0: side, 2: side, 3: side},)
    )
    program.save(tmp_path / 'samples.onnx')
    session = onnxruntime.InferenceSession(tmp_path / 'samples.onnx')
    for other in (x, images(1, 6, 5, 12)):
        (got,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
        assert (torch.from_numpy(got) - Samples()(other)).abs().max() <= 1e-5
