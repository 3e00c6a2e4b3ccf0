"""torch.compile: one graph for images of all sizes, and where there are more, how many and why."""

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

from mmwave.deploy import to_deploy
from tests.contracts import build, images, randomise_norms, relative_error, total

pytestmark = pytest.mark.export

# Windows of 64 pixels, and no stage that differs from the ones before it in kind alone.
PLAIN = dict(depths=(1, 0, 0, 1), dim=8, patch_size=8, grid=8)
PYRAMID = dict(depths=(1, 1, 1, 1), dims=(8, 16, 32, 64))
ARCHS = {
    'EAMLP': dict(depths=(1, 1, 1, 1), dim=8, heads=2, mlp_ratio=2, token_dim=8),
    'GMLP': PLAIN,
    'MLPMixer': dict(PLAIN, token_mlp_dim=6, channel_mlp_dim=12),
    'PosMLP': dict(PYRAMID, windows=(16, 8, 4, 2), groups=(1, 4, 4, 8)),
    'RepMLPNet': dict(PYRAMID, windows=(16, 8, 4, 2), share_sets=(1, 4, 4, 8)),
    'ResMLP': dict(PLAIN, scale_init=1.0),
    'ViP': dict(depths=(1, 1, 1, 1), dims=(32, 32, 32, 32), patch_size=4, grids=(16, 8, 8, 8)),
    'WaveMLP': PYRAMID,
}
STAGES = dict.fromkeys(('EAMLP',), (2,)) | dict.fromkeys(('GMLP', 'MLPMixer', 'ResMLP'), (0, 3))
MODES = dict.fromkeys(ARCHS, ('window',)) | dict.fromkeys(
    ('GMLP', 'MLPMixer', 'ResMLP', 'ViP'), ('window', 'resize')
)
MODES |= dict.fromkeys(('EAMLP', 'WaveMLP'), (None,))
# No random numbers in training, which a graph draws in another order.
STEADY = {'EAMLP': dict(token_drop_rate=0.0)}
# Upright and lying, odd, one row and one column of windows, filled windows.
SIZES = ((100, 132), (132, 100), (64, 200), (230, 64), (128, 192), (97, 131))

# What the others share with those that are always run.
SLOW = {('MLPMixer', 'window'), ('MLPMixer', 'resize'), ('ResMLP', 'window'), ('ResMLP', 'resize')}
slow = pytest.mark.slow


def modes(slow_ones):
    """Backbones and grid modes as parameters, those of ``slow_ones`` marked slow."""
    pairs = [(name, mode) for name in ARCHS for mode in MODES[name]]
    params = [pytest.param(*p, marks=slow if p in slow_ones else ()) for p in pairs]
    return pytest.mark.parametrize(('name', 'grid_mode'), params)


def model(name, grid_mode=None, **options):
    """Two stages, in float64, with batch norms that do something."""
    mode = {} if grid_mode is None else dict(grid_mode=grid_mode)
    made = build(name, ARCHS[name], out_indices=STAGES.get(name, (0, 1)), **mode, **options)
    randomise_norms(made)
    return made.double()


def counting(made, backend='eager', **options):
    """``made`` compiled as in a fresh process, without a break, and the counter of its graphs."""
    torch.compiler.reset()
    counters.clear()
    counter = CompileCounterWithBackend(backend)
    return torch.compile(made, backend=counter, fullgraph=True, **options), counter


def image(height, width, batch=2, dtype=torch.float64):
    """An image whose sides are left open: to fix one is an error."""
    x = images(batch, 3, height, width).to(dtype)
    torch._dynamo.mark_dynamic(x, (2, 3))
    return x


def close(got, wanted):
    return all(relative_error(a, b) < 1e-13 for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize('form', ['train', 'deploy'])
@modes(SLOW)
def test_one_graph_for_all_sizes(name, grid_mode, form):
    made = model(name, grid_mode).eval()
    if form == 'deploy':
        made, _ = to_deploy(made)
    graph, counter = counting(made)
    for size in SIZES:
        x = image(*size)
        with torch.no_grad():
            wanted = made(x.clone())
            assert close(graph(x), wanted)
    assert counter.frame_count == 1


# AOTAutograd traces the backward pass as well.
@modes(SLOW | {('EAMLP', None), ('GMLP', 'resize'), ('ViP', 'resize')})
def test_one_graph_for_training_on_all_sizes(name, grid_mode):
    made = model(name, grid_mode, **STEADY.get(name, {})).train()
    graph, counter = counting(made, 'aot_eager')
    for size in SIZES[:4]:
        found = []
        for run in (made, graph):
            x = image(*size) if run is graph else image(*size).clone()
            made.zero_grad()
            outputs = run(x)
            total(outputs).backward()
            found.append((outputs, [p.grad for p in made.parameters()]))
        (wanted, wanted_grads), (got, grads) = found
        assert close([o.detach() for o in got], [o.detach() for o in wanted])
        largest = max(g.abs().max() for g in wanted_grads)
        for a, b in zip(grads, wanted_grads, strict=True):
            assert (a - b).abs().max() < 1e-11 * largest
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    'name',
    ['GMLP', 'WaveMLP', *(pytest.param(n, marks=slow) for n in ('EAMLP', 'PosMLP', 'RepMLPNet'))],
)
def test_one_graph_for_training_on_all_sizes_under_autocast(name):
    made = model(name, **STEADY.get(name, {})).float().train()
    graph, counter = counting(made, 'aot_eager')
    for size in SIZES[:3]:
        found = []
        for run in (made, graph):
            x = image(*size, dtype=torch.float32)
            made.zero_grad()
            with torch.autocast('cpu', dtype=torch.bfloat16):
                outputs = run(x)
            assert all(o.isfinite().all() for o in outputs)
            total(outputs).backward()
            found.append([o.detach().float() for o in outputs])
            assert all(p.grad.isfinite().all() for p in made.parameters())
        for got, wanted in zip(*found, strict=True):
            assert relative_error(got, wanted) < 8 * torch.finfo(torch.bfloat16).eps
    assert counter.frame_count == 1


# What torch.compile does where nobody names a backend. It takes half a minute to three a model.
@pytest.mark.parametrize(
    ('name', 'grid_mode', 'form'),
    [
        pytest.param(
            name,
            mode,
            form,
            marks=pytest.mark.long
            if (name, form) == ('WaveMLP', 'deploy')
            else [slow, pytest.mark.timeout(900)],
        )
        for name in ARCHS
        for mode in MODES[name]
        for form in ('train', 'deploy')
    ],
)
def test_inductor_makes_one_graph_for_all_sizes(name, grid_mode, form):
    made = model(name, grid_mode, **STEADY.get(name, {})).float()
    if form == 'deploy':
        made, _ = to_deploy(made.eval())
    graph, counter = counting(made.train(form == 'train'), 'inductor')
    for size in SIZES[:4]:
        x, found = image(*size, dtype=torch.float32), []
        for run, given in ((made, x.clone()), (graph, x)):
            made.zero_grad()
            with torch.set_grad_enabled(form == 'train'):
                outputs = run(given)
            if form == 'train':
                total(outputs).backward()
            gradients = [p.grad for p in made.parameters() if form == 'train']
            found.append(([o.detach() for o in outputs], gradients))
        (wanted, wanted_grads), (got, grads) = found
        for a, b in zip(got, wanted, strict=True):
            assert relative_error(a, b) < 5e-6
        largest = max((g.abs().max() for g in wanted_grads), default=0)
        for a, b in zip(grads, wanted_grads, strict=True):
            assert (a - b).abs().max() < 2e-5 * largest
    assert counter.frame_count == 1


# To torch, which treats an axis of length one as another kind, one window of one image is that.
@pytest.mark.parametrize('name', ['GMLP', pytest.param('RepMLPNet', marks=slow)])
@pytest.mark.parametrize('batch', [1, 2])
def test_one_more_graph_for_a_single_window_of_one_image(name, batch):
    made = model(name, 'window').eval()
    graph, counter = counting(made)
    for size, graphs in (((100, 132), 1), ((64, 200), 1), ((50, 64), 2), ((230, 64), 2)):
        x = image(*size, batch=batch)
        with torch.no_grad():
            wanted = made(x.clone())
            assert close(graph(x), wanted)
        assert counter.frame_count == (graphs if batch == 1 else 1)


# Torch has another kernel for float32 convolutions of 16 windows and more.
def test_one_graph_below_and_above_sixteen_windows_of_repmlpnet():
    made = model('RepMLPNet', 'window').float().eval()
    graph, counter = counting(made)
    for size in ((100, 132), (250, 130), (200, 200)):
        x = image(*size, dtype=torch.float32)
        with torch.no_grad():
            wanted = made(x.clone())
            for a, b in zip(graph(x), wanted, strict=True):
                assert relative_error(a, b) < 1e-6
    assert counter.frame_count == 1


# The first size alone, then all.
@pytest.mark.parametrize(
    ('name', 'grid_mode'),
    [
        ('GMLP', 'window'),
        pytest.param('ViP', 'resize', marks=slow),
        pytest.param('WaveMLP', None, marks=slow),
    ],
)
def test_two_graphs_where_nobody_says_that_sizes_vary(name, grid_mode):
    made = model(name, grid_mode).eval()
    graph, counter = counting(made)
    with torch.no_grad():
        for size in SIZES:
            graph(images(2, 3, *size).double())
    assert counter.frame_count == 2


@pytest.mark.parametrize('name', ['GMLP', 'RepMLPNet', 'ViP'])
def test_a_graph_for_the_trained_size_alone_fills_nothing(name):
    made = model(name, 'window').eval()
    x = images(2, 3, 64, 64).double()
    called = []

    def backend(module, inputs):
        called.extend(str(node.target) for node in module.graph.nodes)
        return module

    torch.compiler.reset()
    with torch.no_grad():
        outputs = torch.compile(made, backend=backend, fullgraph=True)(x)
        assert all(torch.equal(a, b) for a, b in zip(outputs, made(x), strict=True))
    assert called
    assert not any(word in name for word in ('pad', 'new_ones') for name in called)


# Number and sides of its windows depend on the map's.
@pytest.mark.parametrize('form', [pytest.param('train', marks=slow), 'deploy'])
def test_a_graph_per_size_of_resized_windows(form):
    made = model('PosMLP', 'resize').eval()
    if form == 'deploy':
        made, _ = to_deploy(made)
    graph, counter = counting(made)
    for size, graphs in (((100, 132), 1), ((64, 96), 2), ((62, 94), 2), ((128, 64), 3)):
        x = images(2, 3, *size).double()
        with torch.no_grad():
            assert close(graph(x), made(x))
        assert counter.frame_count == graphs


def test_strict_sizes():
    made = model('RepMLPNet', 'strict').eval()
    graph, counter = counting(made)
    for size in ((64, 128), (128, 192), (128, 128)):
        x = image(*size)
        with torch.no_grad():
            wanted = made(x.clone())
            assert close(graph(x), wanted)
    assert counter.frame_count == 1
    made = model('GMLP', 'strict').eval()
    x = images(2, 3, 64, 64).double()
    graph = torch.compile(made, backend='eager')
    with torch.no_grad():
        assert close(graph(x), made(x))
        with pytest.raises(ValueError, match='it must have 64 x 64'):
            graph(images(2, 3, 64, 72).double())
