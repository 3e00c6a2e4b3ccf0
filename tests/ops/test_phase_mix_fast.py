"""The fast backends of ``phase_mix`` for the CPU against its definition."""

import pytest
import torch

from mmwave.models import WaveMLP
from mmwave.ops import extension, phase_mix, use_backend
from mmwave.ops._phase_mix import phase_mix_reference
from tests.graphs import check_op

NAMES = ('h', 'w', 'mean', 'a_h', 'p_h', 'a_w', 'p_w', 'k_h', 'k_w')


@pytest.fixture(params=['torch', 'cpp'])
def backend(request):
    if request.param == 'cpp':
        request.getfixturevalue('kernels')
    return request.param


def cases():
    """Return backends with the dtypes that they support."""
    return [('torch', d) for d in (torch.float32, torch.bfloat16, torch.float16)] + [
        ('cpp', d) for d in extension.DTYPES
    ]


def draw(n, c, h, w, taps=7, reach=3.0):
    """Return four maps with channels last, slices of one; kernels; gradients of the outputs."""
    generator = torch.Generator().manual_seed(1000 * h + w)
    merged = torch.randn(n, h, w, 4 * c + 3, generator=generator)
    maps = list(merged[..., 1 : 4 * c + 1].permute(0, 3, 1, 2).split(c, dim=1))
    for k in (1, 3):
        maps[k] = maps[k] * reach
    kernels = [torch.randn(c, 2, *s, generator=generator) for s in ((1, taps), (taps, 1))]
    pulls = [torch.randn(*s, generator=generator) for s in ((n, c, h, w),) * 2 + ((n, c),)]
    return maps + kernels, pulls


def computed(f, inputs, pulls, dtype, split, **settings):
    """Return outputs and gradients, by name, in float64."""
    inputs = [t.to(dtype).detach().requires_grad_() for t in inputs]
    outputs = f(*inputs, split=split, **settings)
    assert all(o.dtype == dtype for o in outputs)
    gradients = torch.autograd.grad(outputs, inputs, [p.to(dtype) for p in pulls])
    return dict(zip(NAMES, [t.double() for t in (*outputs, *gradients)], strict=True))


@pytest.mark.parametrize('split', [False, True])
@pytest.mark.parametrize(('backend', 'dtype'), cases(), indirect=['backend'])
@pytest.mark.parametrize(
    'shape', [(2, 4, 5, 9), (1, 2, 1, 1), (2, 6, 63, 7), (1, 64, 20, 33), (2, 96, 2, 1)]
)
def test_at_most_twice_the_error_of_the_reference(backend, shape, dtype, split):
    inputs, pulls = draw(*shape)
    inputs, pulls = ([t.to(dtype).double() for t in ts] for ts in (inputs, pulls))
    inputs[:4] = [m.contiguous(memory_format=torch.channels_last) for m in inputs[:4]]
    truth = computed(phase_mix_reference, inputs, pulls, torch.float64, split)
    plain = computed(phase_mix_reference, inputs, pulls, dtype, split)
    with use_backend(backend):
        got = computed(phase_mix, inputs, pulls, dtype, split)
    for name, wanted in truth.items():
        # Torch's depthwise convolutions sum a kernel's gradient in another order.
        slack = 3 if backend == 'torch' and name in ('k_h', 'k_w') else 2
        allowed = slack * (plain[name] - wanted).norm() + torch.finfo(dtype).eps * wanted.norm()
        assert (got[name] - wanted).norm() <= allowed, name


@pytest.mark.parametrize('split', [False, True])
def test_torch_backend_in_float64(split):
    inputs, pulls = draw(2, 6, 5, 8)
    truth = computed(phase_mix_reference, inputs, pulls, torch.float64, split)
    with use_backend('torch'):
        got = computed(phase_mix, inputs, pulls, torch.float64, split)
    for name, wanted in truth.items():
        assert (got[name] - wanted).abs().max() <= 1e-14 * wanted.abs().max(), name


@pytest.mark.parametrize('taps', [1, 3, 9])
def test_other_numbers_of_taps(backend, taps):
    inputs, pulls = draw(1, 4, 6, 5, taps=taps)
    truth = computed(phase_mix_reference, inputs, pulls, torch.float64, True)
    with use_backend(backend):
        got = computed(phase_mix, inputs, pulls, torch.float32, True)
    for name, wanted in truth.items():
        assert (got[name] - wanted).norm() <= 3e-7 * wanted.norm(), name


@pytest.mark.parametrize('name', ['reference', 'torch', 'cpp'])
@pytest.mark.parametrize('split', [False, True])
def test_rectified_phases(name, split, request):
    if name == 'cpp':
        request.getfixturevalue('kernels')
    inputs, pulls = draw(2, 6, 5, 8)
    for k in (1, 3):
        inputs[k] = inputs[k].clone()
        inputs[k][:, :2] = 0  # where the gradient of a ReLU is zero
    behind = [t.relu() if k in (1, 3) else t for k, t in enumerate(inputs)]
    truth = computed(phase_mix_reference, behind, pulls, torch.float64, split)
    for k in (1, 3):
        truth[NAMES[3 + k]] = truth[NAMES[3 + k]] * (inputs[k] > 0)
    with use_backend(name):
        got = computed(phase_mix, inputs, pulls, torch.float32, split, rectify=True)
    for key, wanted in truth.items():
        assert (got[key] - wanted).norm() <= 3e-7 * wanted.norm(), key


@pytest.mark.parametrize('reach', [200.0, 8000.0])
def test_large_phases(kernels, reach):
    inputs, pulls = draw(1, 8, 9, 9, reach=reach / 3)
    truth = computed(phase_mix_reference, inputs, pulls, torch.float64, True)
    with use_backend('cpp'):
        got = computed(phase_mix, inputs, pulls, torch.float32, True)
    assert inputs[1].abs().max() > reach / 2
    for name, wanted in truth.items():
        assert (got[name] - wanted).norm() <= 1e-6 * wanted.norm(), name


# Few channels, and whole registers of them.
@pytest.mark.parametrize('channels', [4, 32])
def test_nan_stays_nan(kernels, channels):
    inputs, _ = draw(1, channels, 4, 4)
    inputs[0] = inputs[0].clone()
    inputs[0][0, 1, 2, 2] = float('nan')
    for dtype in (torch.float32, torch.bfloat16):
        with use_backend('cpp'):
            h, w, _ = phase_mix(*(t.to(dtype) for t in inputs))
        assert h[0, 0, 2].isnan().all()  # channels 0 and 1 are mixed with each other
        assert not h[0, 1].isnan().any()
        assert not w.isnan().any()


@pytest.mark.parametrize('channels', [4, 32])
@pytest.mark.parametrize('dtype', extension.DTYPES)
def test_infinite_phases_give_nan(kernels, channels, dtype):
    inputs, _ = draw(1, channels, 4, 4)
    inputs[1] = inputs[1].clone()
    inputs[1][0, 1, 2, 2] = float('inf')
    with use_backend('cpp'):
        h, _, _ = phase_mix(*(t.to(dtype) for t in inputs))
    assert h[0, 0, 2].isnan().all()
    assert not h[0, 1].isnan().any()


def test_every_result_is_written(kernels):
    inputs, pulls = draw(1, 6, 3, 11)
    with use_backend('cpp'):
        found = computed(phase_mix, inputs, pulls, torch.float32, True)
    assert all(t.isfinite().all() for t in found.values())


def test_gradients_are_deterministic(kernels):
    inputs, pulls = draw(2, 64, 20, 33)
    with use_backend('cpp'):
        runs = [computed(phase_mix, inputs, pulls, torch.float32, True) for _ in range(3)]
    assert all(torch.equal(runs[0][name], run[name]) for run in runs[1:] for name in NAMES)


def test_operators_are_registered_correctly(kernels):
    inputs, _ = draw(1, 4, 3, 5)
    ops = torch.ops.mmwave_cpp
    check_op(ops.phase_mix.default, *(t.detach().requires_grad_() for t in inputs), True, True)
    inputs = [t.detach() for t in inputs]
    pulls = ops.phase_mix(*inputs, True, True)
    check_op(ops.phase_mix_backward.default, *pulls, *inputs, True, True)


def test_one_node_in_a_graph(kernels):
    inputs, _ = draw(1, 4, 3, 5)
    graphs = []

    def note(graph, _):
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return graph

    torch.compiler.reset()
    compiled = torch.compile(lambda *t: phase_mix(*t), backend=note, fullgraph=True)
    with use_backend('auto'):
        got, wanted = compiled(*inputs), phase_mix(*inputs)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    assert [n for n in graphs[0] if 'phase_mix' in n] == ['mmwave_cpp.phase_mix']


def test_reasons_against_the_kernel(kernels):
    inputs, _ = draw(1, 4, 4, 4)
    maps, kernels = inputs[:4], inputs[4:]
    cases = {
        'maps of one dtype': [t.double() for t in inputs],
        'must be contiguous': [*(m.contiguous() for m in maps), *kernels],
        'on the CPU': [t.to('meta') for t in inputs],
    }
    with use_backend('cpp'):
        for reason, tensors in cases.items():
            with pytest.raises(RuntimeError, match=reason):
                phase_mix(*tensors)
        odd, _ = draw(1, 3, 4, 4)
        with pytest.raises(RuntimeError, match='3 channels are not an even number'):
            phase_mix(*odd)
    with (
        use_backend('torch'),
        pytest.raises(RuntimeError, match='3 channels are not an even number'),
    ):
        phase_mix(*odd)
    assert phase_mix(*odd)[0].shape == (1, 3, 4, 4)  # by the reference
    with pytest.raises(ValueError, match='split=True needs an even number of channels, not 3'):
        phase_mix(*odd, split=True)


def test_a_backbone_with_the_kernel(kernels):
    torch.manual_seed(0)
    arch = dict(depths=(1, 1, 1, 1), dims=(16, 24, 32, 40), norm='BN')
    model = WaveMLP(arch).train()
    x = torch.randn(2, 3, 64, 72)
    found = []
    for name in ('cpp', 'torch'):
        with use_backend(name):
            outputs = model(x)
            torch.autograd.backward(outputs, [torch.ones_like(o) * o.detach() for o in outputs])
        found.append([o.detach() for o in outputs] + [p.grad.clone() for p in model.parameters()])
        model.zero_grad()
    scale = max(t.abs().max() for t in found[1][4:])
    for k, (a, b) in enumerate(zip(*found, strict=True)):
        assert (a - b).abs().max() <= 3e-6 * (b.abs().max() if k < 4 else scale)
