"""``axial_shift`` against its formula, position by position."""

import math

import pytest
import torch
from torch import nn

from mmwave.ops import axial_shift, extension, use_backend
from mmwave.ops._axial_shift import axial_shift_reference
from mmwave.ops._axial_shift.channels import MAX_SLICES, slices_of
from tests.contracts import images
from tests.graphs import check_op, recorded

BACKENDS = ('reference', 'torch', 'cpp')
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


@pytest.fixture(params=BACKENDS)
def backend(request):
    if request.param == 'cpp':
        request.getfixturevalue('kernels')
    with use_backend(request.param):
        yield request.param


def as_mlp(channels, size):
    """Groups of ceil(C / s) consecutive channels, the last one shorter or missing."""
    group = math.ceil(channels / size)
    return tuple(c // group - size // 2 for c in range(channels))


def cycle_mlp(channels):
    return tuple((c + 1) % 3 - 1 for c in range(channels))


def drawn(channels, reach):
    """Offsets without a pattern."""
    generator = torch.Generator().manual_seed(channels)
    return tuple(torch.randint(-reach, reach + 1, (channels,), generator=generator).tolist())


PATTERNS = {
    **{f'as{s}': lambda c, s=s: as_mlp(c, s) for s in (3, 5, 7)},
    'cycle': cycle_mlp,
    'drawn': lambda c: drawn(c, 2),
    'none': lambda c: (0,) * c,
    'far': lambda c: (1000,) + (-100,) * (c - 1),
    'many': lambda c: tuple(range(-c // 2, c - c // 2 - 1)),
}
# Channels are few and many; sides 1, 7 and 63.
SHAPES = [(2, 5, 7, 4), (1, 1, 1, 1), (1, 3, 63, 7), (2, 7, 1, 63), (1, 96, 2, 9)]


def written_out(x, offsets, dim):
    values, result = x.tolist(), x.clone()
    n, c, h, w = x.shape
    for i in range(n):
        for k in range(c):
            for y in range(h):
                for z in range(w):
                    row, column = (y + offsets[k], z) if dim == 2 else (y, z + offsets[k])
                    inside = 0 <= row < h and 0 <= column < w
                    result[i, k, y, z] = values[i][k][row][column] if inside else 0.0
    return result


def layouts(x):
    """The same map with channels first, last, and in slices of wider maps."""
    wider = torch.full((x.shape[0], x.shape[2], x.shape[3], x.shape[1] + 3), float('nan'))
    wider = wider.to(x.dtype)
    wider[..., 1:-2] = x.permute(0, 2, 3, 1)
    yield wider[..., 1:-2].permute(0, 3, 1, 2)
    yield x.clone(memory_format=torch.channels_last)
    yield x.contiguous()
    yield torch.cat([x, x], dim=3)[..., : x.shape[3]]
    yield torch.cat([x, x], dim=1)[:, : x.shape[1]]


@pytest.mark.parametrize('dim', [2, 3])
@pytest.mark.parametrize('pattern', PATTERNS)
@pytest.mark.parametrize('shape', SHAPES, ids=str)
def test_values_and_gradients(backend, shape, pattern, dim):
    offsets = PATTERNS[pattern](shape[1])
    offsets = (*offsets, *[0] * shape[1])[: shape[1]]
    if backend == 'torch' and len(slices_of(offsets)) > MAX_SLICES:
        pytest.skip('more slices than this backend supports')
    x, pull = images(*shape), images(*shape, seed=1)
    wanted = written_out(x, offsets, dim)
    back = written_out(pull, [-o for o in offsets], dim)
    for dtype in (torch.float64, *DTYPES):
        if backend == 'cpp' and dtype == torch.float64:
            continue
        sources = list(layouts(x.to(dtype)))
        for source in sources if dtype == torch.float32 else sources[:2]:
            leaf = source.detach().requires_grad_()
            got = axial_shift(leaf, offsets, dim)
            assert got.dtype == dtype
            assert torch.equal(got, wanted.to(dtype))
            for given in (pull.to(dtype), pull.to(dtype, memory_format=torch.channels_last)):
                (found,) = torch.autograd.grad(got, leaf, given, retain_graph=True)
                assert torch.equal(found, back.to(dtype))


def test_the_gradient_of_a_sum(backend):
    """Autograd passes a gradient without memory of its own."""
    x = images(1, 6, 4, 5).to(memory_format=torch.channels_last).requires_grad_()
    (found,) = torch.autograd.grad(axial_shift(x, cycle_mlp(6), 3).sum(), x)
    assert torch.equal(found, written_out(torch.ones(1, 6, 4, 5), [0, -1, 1] * 2, 3))


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
def test_the_memory_format_stays(backend, layout):
    x = images(2, 6, 4, 5).contiguous(memory_format=layout)
    assert axial_shift(x, cycle_mlp(6), 2).is_contiguous(memory_format=layout)


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
@pytest.mark.parametrize('pattern', ['cycle', 'as3', 'drawn'])
@pytest.mark.parametrize('dim', [2, 3])
def test_nan_and_infinity_stay_where_they_are_read(backend, value, pattern, dim):
    offsets = PATTERNS[pattern](9)
    x = images(1, 9, 5, 6).to(memory_format=torch.channels_last)
    x[0, 4, 2, 3] = value
    got = axial_shift(x, offsets, dim)
    assert torch.equal(got.isfinite(), written_out(x, offsets, dim).isfinite())
    assert not got.isfinite().all()


@pytest.mark.parametrize('dim', [2, 3])
def test_first_and_second_derivatives(backend, dim):
    dtype = torch.float32 if backend == 'cpp' else torch.float64
    x = images(2, 7, 3, 4).to(dtype).to(memory_format=torch.channels_last).requires_grad_()

    def squared(x):
        return axial_shift(x, as_mlp(7, 3), dim).square()

    if dtype == torch.float64:
        assert torch.autograd.gradcheck(squared, x)
        assert torch.autograd.gradgradcheck(squared, x)
    (first,) = torch.autograd.grad(squared(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), x)
    # What is read once is squared once.
    once = written_out(torch.ones(2, 7, 3, 4), [-o for o in as_mlp(7, 3)], dim)
    assert torch.equal(second, 2 * once.to(dtype))


def test_two_threads(backend, two_threads):
    x = images(3, 96, 28, 28).to(memory_format=torch.channels_last)
    for offsets in (cycle_mlp(96), as_mlp(96, 5)):
        for source in (x, x.contiguous()):
            assert torch.equal(
                axial_shift(source, offsets, 2), axial_shift_reference(source, offsets, 2)
            )


def test_empty_batch(backend):
    assert axial_shift(torch.zeros(0, 6, 4, 5), cycle_mlp(6), 2).shape == (0, 6, 4, 5)


def test_slices():
    assert slices_of(cycle_mlp(10)) == [(0, 10, 3, 0), (1, 10, 3, 1), (2, 10, 3, -1)]
    assert slices_of(as_mlp(10, 3)) == [(0, 4, 1, -1), (4, 8, 1, 0), (8, 10, 1, 1)]
    assert slices_of((2,) * 5) == [(0, 5, 1, 2)]
    assert slices_of((2, 1)) == [(0, 1, 1, 2), (1, 2, 1, 1)]


def test_errors_name_the_values():
    x = images(2, 6, 4, 5)
    with pytest.raises(ValueError, match=r'got \(2, 6, 4, 5\) and 5'):
        axial_shift(x, cycle_mlp(5), 2)
    with pytest.raises(ValueError, match=r'got \(6, 4, 5\) and 6'):
        axial_shift(x[0], cycle_mlp(6), 2)
    with pytest.raises(ValueError, match=r'dim=1: expected 2, the height, or 3, the width'):
        axial_shift(x, cycle_mlp(6), 1)


def test_reasons(kernels):
    x = images(2, 40, 4, 5)
    cases = {
        ('cpp', 'not torch.float64'): x.double(),
        ('cpp', 'on the CPU'): x.to('meta'),
        ('cpp', 'must be contiguous'): x.transpose(1, 2).contiguous().transpose(1, 2).mT,
        ('torch', 'no more than 16 slices'): x,
    }
    for (name, reason), source in cases.items():
        with use_backend(name), pytest.raises(RuntimeError, match=reason):
            axial_shift(source, tuple(range(40)), 2)
        if source.device.type == 'cpu':
            axial_shift(source, tuple(range(40)), 2)


def test_transforms(kernels):
    """They see the definition, which they can differentiate."""
    x = images(3, 2, 6, 4, 5, seed=3)
    shift = lambda m: axial_shift(m, cycle_mlp(6), 3)  # noqa: E731
    wanted = torch.stack([shift(m) for m in x])
    assert torch.equal(torch.func.vmap(shift)(x), wanted)
    _, moved = torch.func.jvp(shift, (x[0],), (x[1],))
    assert torch.equal(moved, wanted[1])


def test_operators_are_registered_correctly(kernels):
    for x in layouts(images(2, 6, 4, 5)):
        leaf = x.detach().requires_grad_()
        check_op(torch.ops.mmwave_cpp.axial_shift.default, leaf, list(cycle_mlp(6)), 3)


def test_one_node_in_a_graph(kernels):
    x = images(2, 6, 4, 5).to(memory_format=torch.channels_last)
    got, nodes = recorded(lambda x: axial_shift(x, cycle_mlp(6), 3), x, open_axes=(2, 3))
    assert torch.equal(got, axial_shift_reference(x, cycle_mlp(6), 3))
    assert [n for n in nodes if 'shift' in n] == ['mmwave_cpp.axial_shift']


@pytest.mark.parametrize('dim', [2, 3])
def test_a_graph_of_any_size_without_kernels(dim):
    x = images(2, 6, 4, 5).to(memory_format=torch.channels_last)
    torch.compiler.reset()
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(
        lambda x: axial_shift(x, cycle_mlp(6), dim), backend=counter, dynamic=True, fullgraph=True
    )
    for shape in ((2, 6, 4, 5), (3, 6, 7, 9), (2, 6, 8, 3)):
        x = images(*shape).to(memory_format=torch.channels_last)
        with extension.without_kernels():
            assert torch.equal(compiled(x), axial_shift_reference(x, cycle_mlp(6), dim))
    assert counter.frame_count == 1


class Shifts(nn.Module):
    def forward(self, x):
        return axial_shift(x, cycle_mlp(6), 2) + axial_shift(x, as_mlp(6, 5), 3)


@pytest.mark.export
def test_export(kernels):
    x, side = images(2, 6, 8, 9), torch.export.Dim.DYNAMIC
    program = torch.export.export(Shifts(), (x,), dynamic_shapes=({0: side, 2: side, 3: side},))
    assert 'mmwave' not in str(program.graph)
    for other in (x, images(1, 6, 5, 12)):
        assert torch.equal(program.module()(other), Shifts()(other))


@pytest.mark.export
def test_onnx(tmp_path):
    pytest.importorskip('onnxscript')
    onnxruntime = pytest.importorskip('onnxruntime')
    x, side = images(2, 6, 8, 9), torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        Shifts(), (x,), dynamo=True, dynamic_shapes=({0: side, 2: side, 3: side},)
    )
    program.save(tmp_path / 'shifts.onnx')
    session = onnxruntime.InferenceSession(tmp_path / 'shifts.onnx')
    for other in (x, images(1, 6, 5, 12)):
        (got,) = session.run(None, {session.get_inputs()[0].name: other.numpy()})
        assert torch.equal(torch.from_numpy(got), Shifts()(other))
