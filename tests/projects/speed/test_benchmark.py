"""The benchmark: nothing is timed before it is equal; rows, tables, files, and bad use."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from mmwave.errors import UserError
from mmwave.inspect.timing import Timing
from mmwave.models import RepMLPNet, WaveMLP
from mmwave.models.backbones.repmlpnet import ARCHS
from mmwave.models.backbones.wavemlp import WaveMLPArch
from speed import benchmark, cases
from speed.benchmark import run
from speed.cases import MODES, WIDER, models
from speed.equality import COARSE, Unequal, check_phase_mix
from speed.forms import Form, randomise_norms
from speed.peers import PEERS, Other
from speed.report import backbone_layout, table
from speed.roofline import SIDE
from tests.contracts import images, registered
from tests.projects.speed.tiny import OURS, PEER, TINY, Toy, case

pytestmark = pytest.mark.usefixtures('tiny')


def of(result, *roles):
    return [row for row in result.rows if row.form.label.role in roles]


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('dtype', WIDER)
def test_one_row_for_each_form(mode, dtype):
    result = run(case(mode, dtype), repeats=3)
    assert [str(row.form.label) for row in result.rows] == OURS[mode] + PEER
    assert result.sound
    assert result.note == ''
    eps = torch.finfo(getattr(torch, dtype)).eps
    for row in result.rows:
        assert row.reference is result.rows[0].reference
        assert row.reference.label.role == 'peer'
        assert row.compiled is row.compiled_ratio is None
        form = row.form
        # What float32 may have is below what bfloat16 may.
        assert eps / 32 < form.error < 512 * eps
        assert len(form.time.wall) == len(form.time.cpu) == 3
        assert row.ratio.median > 0
        assert row.share == pytest.approx(2 * form.macs / form.time.median / row.gemm)
        assert (form.memory is None) == (mode == 'inference')


def test_memory_of_checkpointing_of_ours_and_of_the_published():
    lean, checkpointed, plain, published, _ = (r.form for r in run(case('train'), repeats=2).rows)
    assert checkpointed.memory.saved < 0.3 * plain.memory.saved
    assert checkpointed.memory.peak < 0.7 * plain.memory.peak
    assert lean.memory.saved <= plain.memory.saved < 1.1 * published.memory.saved


def test_our_forms_in_training_have_their_settings(monkeypatch):
    seen = []

    def pretend(candidates, *, repeats, device):
        for label, step in candidates.items():
            if label.role == 'ours':
                module = step.__self__.module
                seen.append((label.name, module.lean, module.with_cp, module.training))
        return {label: Timing((1.0,) * repeats, (1.0,) * repeats) for label in candidates}

    monkeypatch.setattr(benchmark, 'alternate', pretend)
    run(case('train'), repeats=2)
    assert seen == [
        ('lean', True, False, True),
        ('with_cp', True, True, True),
        ('not lean', False, False, True),
    ]


def clock(monkeypatch, seconds):
    """Makes every form take the seconds that ``seconds`` has for its label's text."""

    def pretend(candidates, *, repeats, device):
        return {
            label: Timing((seconds.get(str(label), 0.5),) * repeats, (1.0,) * repeats)
            for label in candidates
        }

    monkeypatch.setattr(benchmark, 'alternate', pretend)


def test_the_faster_layout_of_the_peer_counts(monkeypatch):
    seconds = {'deploy': 1.0, 'train form': 2.0, 'published NCHW': 8.0, 'published NHWC': 4.0}
    clock(monkeypatch, seconds)
    rows = run(case(), repeats=2).rows
    assert [row.ratio.median for row in rows] == [4, 2, 0.5, 1]
    # The product took half a second.
    assert {row.gemm for row in rows} == {4 * SIDE**3}
    assert {str(row.reference.label) for row in rows} == {'published NHWC'}
    seconds['published NHWC'] = 9.0
    assert {str(row.reference.label) for row in run(case(), repeats=2).rows} == {'published NCHW'}


def test_layouts_of_the_peer_and_that_of_ours():
    seen = {}

    def watch(candidates, *, repeats, device):
        for label, step in candidates.items():
            if label.role == 'machine':
                continue
            form = step.__self__
            seen[str(label)] = [
                x.is_contiguous(memory_format=torch.channels_last)
                for x in (form.images, form.module.stem.conv.weight)
            ]
        return {label: Timing((1.0,) * repeats, (1.0,) * repeats) for label in candidates}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, 'alternate', watch)
        run(case(), repeats=2)
    plain, last = [False, False], [True, True]
    assert seen == dict(zip([*OURS['inference'], *PEER], [plain, plain, plain, last], strict=True))
    # The layout that a deploy form has chosen for its weights stays.
    module = RepMLPNet(TINY).to(memory_format=torch.channels_last)
    form = Form(module, torch.randn(1, 3, 64, 64), None, torch.float32)
    assert form.module.stem.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert form.images.is_contiguous()


@pytest.mark.parametrize('mode', MODES)
def test_compiled_forms_are_held_against_the_compiled_peer(monkeypatch, mode):
    names = [*OURS[mode], *PEER]
    again = [f'{n} compiled' for n in names if n not in ('with_cp', 'not lean')]
    seconds = dict.fromkeys(names, 8.0) | dict.fromkeys(again, 2.0)
    seconds |= {'published NCHW compiled': 4.0, 'published NHWC compiled': 6.0}
    clock(monkeypatch, seconds)
    result = run(case(mode, model='toy-one'), repeats=2, compiler='eager')
    assert [str(row.form.label) for row in result.rows] == names + again
    assert result.sound
    for row in result.rows:
        compiled = row.form.label.compiled
        assert str(row.compiled.label) == 'published NCHW compiled'
        assert row.ratio.median == 8 / seconds[str(row.form.label)]
        assert (row.compiled_ratio is None) == (not compiled)
        assert not compiled or row.compiled_ratio.median == 4 / seconds[str(row.form.label)]


def with_backend(monkeypatch, backend):
    compiled = torch.compile
    monkeypatch.setattr('torch.compile', lambda f, **o: compiled(f, **o | {'backend': backend}))


@pytest.mark.parametrize('mode', MODES)
def test_compiled_forms_run_in_the_graph(monkeypatch, mode):
    graphs, calls = [], []

    def backend(graph, inputs):
        graphs.append(graph)

        def call(*tensors):
            calls.append(graph)
            return graph.forward(*tensors)

        return call

    with_backend(monkeypatch, backend)
    run(case(mode, model='toy-one'), repeats=2, compiler='mine')
    # One for each layout, none a second time while timed.
    assert len(graphs) == 2
    # Forms, called to be compared, to warm up and in both rounds, in training twice for memory.
    assert len(calls) == (4 * 4 if mode == 'inference' else 3 * 6)
    # What an earlier case compiled does not count.
    run(case(mode, model='toy-one'), repeats=2, compiler='mine')
    assert len(graphs) == 4


def test_what_cannot_be_compiled_is_said(monkeypatch):
    def broken(graph, inputs):
        raise RuntimeError('no such luck')

    with_backend(monkeypatch, broken)
    result = run(case(model='toy-one'), repeats=2, compiler='mine')
    assert not result.sound
    assert [bool(row.form.problem) for row in result.rows] == [False] * 4 + [True] * 4
    row = result.rows[4]
    assert 'not compiled: ' in row.form.problem
    assert 'no such luck' in row.form.problem
    assert row.form.time is row.ratio is row.share is None
    lines = list(table([result], backbone_layout, repeats=2))
    assert sum('failed' in line for line in lines) == 4


def test_a_size_that_the_peer_does_not_take():
    for mode in MODES:
        result = run(case(mode, size=(64, 100)), repeats=2)
        assert [row.form.label.name for row in result.rows] == OURS[mode]
        assert result.sound
        assert 'published: ' in result.note
        assert 'multiple of 64' in result.note
        for row in result.rows:
            assert row.reference is row.ratio is row.cpu_ratio is None
            assert row.form.time.median > 0
            assert row.share > 0
        *_, line, note = table([result], backbone_layout, repeats=2)
        assert note == f'# repmlpnet-tiny: {result.note}'
        assert line.startswith('repmlpnet-tiny  64x100 ')


class Last(nn.Module):
    """The last level of a model, as another library would give it."""

    def __init__(self, model, factor=1.0):
        super().__init__()
        self.model, self.factor, self.sizes = model, factor, model.arch.filled_sizes()

    def forward(self, x):
        return (self.model(x)[-1] * self.factor,)


@pytest.mark.parametrize('factor', [1.0, 1 + 2 * COARSE])
def test_other_libraries_are_compared_on_the_levels_they_have(monkeypatch, factor):
    other = Other((3,), lambda model: Last(RepMLPNet.deploy_form(model)[0], factor))
    peers = {'repmlpnet': replace(PEERS['repmlpnet'], others={'library': other})}
    monkeypatch.setattr(cases, 'PEERS', peers)
    result = run(case(), repeats=2)
    rows = of(result, 'other')
    assert [str(row.form.label) for row in rows] == ['library NCHW', 'library NHWC']
    for row in rows:
        assert (row.form.problem == '') == (factor == 1)
        assert (row.form.time is None) == (factor != 1)
    assert result.sound == (factor == 1)
    assert of(run(case('train'), repeats=2), 'other') == []


def test_other_libraries_may_take_fewer_sizes(monkeypatch):
    def build(model):
        module = Last(model)
        module.sizes = replace(module.sizes, only=(64, 64))
        return module

    peers = {'repmlpnet': replace(PEERS['repmlpnet'], others={'library': Other((3,), build)})}
    monkeypatch.setattr(cases, 'PEERS', peers)
    result = run(case(), repeats=2)
    assert of(result, 'other') == []
    assert result.note == 'library accepts no images of this size'


@pytest.mark.parametrize('mode', MODES)
def test_contenders_are_timed_and_compared_with_nothing(monkeypatch, mode):
    monkeypatch.setattr(benchmark, 'CONTENDERS', {'net': lambda: Toy(None, None)})
    result = run(case(mode, model='toy-one'), repeats=2, contenders=('net',), compiler='eager')
    rows = of(result, 'contender')
    names = ['net NCHW', 'net NHWC']
    assert [str(row.form.label) for row in rows] == names + [f'{n} compiled' for n in names]
    # 16 x 32 positions of 4 images, 4 channels of 48 products; thrice in a step.
    macs = 4 * (16 * 32) * 4 * 48
    for row in rows:
        assert row.form.macs == (3 * macs if mode == 'train' else macs)
        assert row.form.error is None
        assert row.form.time.median > 0
        assert (row.form.memory is None) == (mode == 'inference')
    assert result.sound
    with pytest.raises(UserError, match="unknown contender 'nets': expected one of net"):
        run(case(), repeats=2, contenders=('nets',))


@pytest.mark.parametrize(
    ('spoil', 'mode'),
    [('forward', 'inference'), ('forward', 'train'), ('backward', 'train')],
)
def test_what_computes_something_else_is_not_timed(spoilt, spoil, mode):
    spoilt(spoil)
    result = run(case(mode), repeats=2)
    assert not result.sound
    for row in result.rows:
        ours = row.form.label.role == 'ours'
        assert (row.form.time is None) == (row.ratio is None) == ours
        assert ('is above' in row.form.problem) == ours
        assert row.form.memory is None or not ours
    lines = list(table([result], backbone_layout, repeats=2))
    assert sum(' unequal' in line for line in lines) == len(OURS[mode])
    reasons = [line for line in lines if line.startswith('# ')]
    assert [line.partition(':')[0][2:] for line in reasons] == OURS[mode]


def test_a_spoilt_deploy_form_alone(monkeypatch, spoilt):
    clock(monkeypatch, dict.fromkeys(('train form', *PEER), 1.0))
    spoilt('deploy')
    result = run(case(), repeats=2)
    assert [bool(row.form.problem) for row in result.rows] == [True, False, False, False]
    assert not result.sound


def test_without_a_peer_our_own_train_form_is_the_standard(monkeypatch, spoilt):
    clock(monkeypatch, dict.fromkeys(OURS['inference'], 1.0))
    spoilt('deploy')
    result = run(case(size=(64, 100)), repeats=2)
    assert [bool(row.form.problem) for row in result.rows] == [True, False]


@pytest.mark.parametrize('built', [False, True])
def test_without_kernels_where_there_are_some(monkeypatch, built):
    tiny = WaveMLPArch(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8))
    monkeypatch.setattr(WaveMLP, 'archs', {'tiny': tiny})
    monkeypatch.setattr(benchmark.extension, 'is_built', lambda: built)
    monkeypatch.setattr(benchmark.extension, '_ready', True)
    which = case(model='wavemlp-tiny')
    modules, _ = benchmark._modules(which, benchmark._model(which))
    found = {label.name: module for label, module in modules.items() if label.role == 'ours'}
    assert list(found) == ['deploy', *[benchmark.NO_KERNEL] * built, 'train form']
    if built:
        seen = []
        alone = found[benchmark.NO_KERNEL]
        ready = benchmark.extension.unavailable
        alone.module.register_forward_pre_hook(lambda *_: seen.append(ready()))
        alone(images(1, 3, 64, 64))
        assert 'not built' in seen[0]
        assert not ready()


def test_nothing_is_timed_where_an_op_of_the_family_is_wrong(monkeypatch):
    assert PEERS['wavemlp'].check_ops is check_phase_mix

    def wrong(dtype, device):
        raise Unequal(f'phase_mix: {dtype} on {device}')

    peers = {'wavemlp': replace(PEERS['wavemlp'], check_ops=wrong)}
    monkeypatch.setattr(cases, 'PEERS', peers)
    monkeypatch.setattr(benchmark, '_measure', lambda *a: pytest.fail('measured'))
    with pytest.raises(Unequal, match=r'phase_mix: torch\.float32 on cpu'):
        run(case(model='wavemlp-t'), repeats=2)


@pytest.mark.parametrize('mode', MODES)
def test_a_family_without_a_peer_is_measured_alone(monkeypatch, spoilt, mode):
    monkeypatch.setattr(cases, 'PEERS', {})
    result = run(case(mode), repeats=2)
    assert [str(row.form.label) for row in result.rows] == OURS[mode]
    assert result.sound
    assert result.note == 'there is no peer of this family'
    assert all(row.reference is row.ratio is None for row in result.rows)
    assert all(row.form.time and row.share for row in result.rows)
    if mode == 'inference':
        spoilt('deploy')
        assert not run(case(), repeats=2).sound


@pytest.mark.parametrize('mode', MODES)
def test_a_step_leaves_nothing_behind(mode):
    torch.manual_seed(0)
    module = RepMLPNet(TINY).train(mode == 'train')
    images = torch.randn(2, 3, 64, 64)
    gradients = [torch.ones_like(x) for x in module(images)] if mode == 'train' else None
    form = Form(module, images, gradients, torch.float32, 'NHWC')
    assert form.images.is_contiguous(memory_format=torch.channels_last)
    assert module.stem.conv.weight.is_contiguous(memory_format=torch.channels_last)
    seen = []
    module.stem.register_forward_hook(lambda *_: seen.append(torch.is_inference_mode_enabled()))
    module.stem.conv.weight.register_hook(lambda _: seen.append('backward'))
    form.step()
    assert seen == ([True] if mode == 'inference' else [False, 'backward'])
    assert all(p.grad is None for p in module.parameters())


def test_norms_are_drawn(monkeypatch):
    model = RepMLPNet(TINY)
    fresh = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    randomise_norms(model)
    for name, tensor in model.state_dict().items():
        drawn = 'norm' in name and not name.endswith('num_batches_tracked')
        assert tensor.equal(fresh[name]) != drawn, name

    drawn = []
    monkeypatch.setattr(benchmark, 'randomise_norms', drawn.append)
    run(case(), repeats=2)
    assert len(drawn) == 1


def test_every_backbone_can_be_measured(monkeypatch):
    monkeypatch.setattr(cases, 'PEERS', {})
    found = models()
    assert [m for m in found if m.startswith('repmlpnet')] == [
        f'repmlpnet-{arch}' for arch in (*ARCHS, 'tiny')
    ]
    # The toy is not registered.
    assert len(found) == sum(len(c.archs) for c in registered().values()) + 1


def test_cases_are_every_combination():
    made = cases.cases(
        ['repmlpnet-tiny', 'wavemlp-t'],
        sizes=[(448, 448, 3), (448, 900, 1)],
        dtypes=WIDER,
        modes=MODES,
    )
    assert len(set(made)) == 2 * 2 * len(WIDER) * len(MODES)
    assert {(c.size, c.batch) for c in made} == {((448, 448), 3), ((448, 900), 1)}


def test_batch_below_one_is_refused():
    with pytest.raises(UserError, match='batch=0 must be at least 1'):
        cases.cases(['repmlpnet-tiny'], sizes=[(64, 64, 0)], dtypes=['float32'], modes=['train'])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('mode', MODES)
def test_on_a_gpu(mode):
    for row in run(case(mode), repeats=3, device='cuda').rows:
        assert row.ratio.median > 0
        assert mode == 'inference' or row.form.memory.peak > row.form.memory.saved > 0
