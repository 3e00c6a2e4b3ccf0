"""The benchmark: nothing is timed before it is equal; rows, tables, files, and bad use."""

import csv
import importlib.util
import re
from dataclasses import replace

import pytest
import torch

from mmwave.analysis import benchmark
from mmwave.analysis.benchmark import (
    MODES,
    WIDER,
    Measured,
    Row,
    cases,
    models,
    randomise_norms,
    run,
)
from mmwave.analysis.equality import SLACK, Unequal, check_equal, relative_error
from mmwave.analysis.forms import Form, Memory
from mmwave.analysis.report import table
from mmwave.analysis.timing import Timing, machine
from mmwave.errors import UserError
from mmwave.models import RepMLPNet
from mmwave.models.backbones.repmlpnet import ARCHS

TINY = replace(
    ARCHS['t224'],
    depths=(4, 2, 1, 1),
    dims=(8, 8, 16, 16),
    windows=(16, 8, 4, 2),
    share_sets=(1, 2, 4, 16),
)
FORMS = {'inference': ['deploy', 'train form'], 'train': ['train form', 'with_cp']}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Adds ``repmlpnet-tiny``, of windows of 64 pixels."""
    monkeypatch.setattr(RepMLPNet, 'archs', {**ARCHS, 'tiny': TINY})


def case(mode='inference', dtype='float32', size=(64, 128)):
    (only,) = cases(['repmlpnet-tiny'], sizes=[size], batch=4, dtypes=[dtype], modes=[mode])
    return only


@pytest.mark.parametrize('mode', MODES)
@pytest.mark.parametrize('dtype', WIDER)
def test_one_row_for_each_form_of_ours(mode, dtype):
    rows = run(case(mode, dtype), repeats=3)
    assert [row.ours.form for row in rows] == FORMS[mode]
    eps = torch.finfo(getattr(torch, dtype)).eps
    for row in rows:
        assert row.peer is rows[0].peer
        assert row.peer.form in ('NCHW', 'NHWC')
        for form in (row.ours, row.peer):
            # What float32 may have is below what bfloat16 may.
            assert eps / 32 < form.error < 512 * eps
            assert len(form.time.wall) == len(form.time.cpu) == 3
            assert form.time.median > 0
            assert (form.memory is None) == (mode == 'inference')


def test_memory_of_checkpointing_of_ours_and_of_the_published():
    plain, checkpointed = run(case('train'), repeats=2)
    assert checkpointed.ours.memory.saved < 0.3 * plain.ours.memory.saved
    assert checkpointed.ours.memory.peak < 0.7 * plain.ours.memory.peak
    assert plain.ours.memory.saved < 1.1 * plain.peer.memory.saved


def test_the_faster_layout_of_the_peer_counts(monkeypatch):
    seconds = {'deploy': 1.0, 'train form': 2.0, 'NCHW': 8.0, 'NHWC': 4.0}

    def pretend(candidates, *, repeats, device):
        nhwc = [
            step.__self__.images.is_contiguous(memory_format=torch.channels_last)
            for step in candidates.values()
        ]
        assert dict(zip(candidates, nhwc, strict=True)) == {n: n == 'NHWC' for n in seconds}
        return {name: Timing((seconds[name],) * repeats, (1.0,) * repeats) for name in candidates}

    monkeypatch.setattr(benchmark, 'alternate', pretend)
    rows = run(case(), repeats=2)
    assert [(row.peer.form, row.ratio.median) for row in rows] == [('NHWC', 4), ('NHWC', 2)]
    seconds['NHWC'] = 9.0
    assert {row.peer.form for row in run(case(), repeats=2)} == {'NCHW'}


def spoil_forward(monkeypatch):
    forward = RepMLPNet.forward

    def shifted(self, x):
        *others, last = forward(self, x)
        return *others, last * 1.0001

    monkeypatch.setattr(RepMLPNet, 'forward', shifted)


def spoil_backward(monkeypatch):
    forward = RepMLPNet.forward

    def hooked(self, x):
        outputs = forward(self, x)
        if outputs[0].requires_grad:
            outputs[0].register_hook(lambda gradient: gradient * 1.001)
        return outputs

    monkeypatch.setattr(RepMLPNet, 'forward', hooked)


@pytest.mark.parametrize(
    ('spoil', 'mode'),
    [(spoil_forward, 'inference'), (spoil_forward, 'train'), (spoil_backward, 'train')],
)
def test_nothing_is_timed_where_ours_computes_something_else(monkeypatch, spoil, mode):
    spoil(monkeypatch)
    monkeypatch.setattr(benchmark, 'alternate', lambda *a, **k: pytest.fail('timed'))
    with pytest.raises(Unequal, match=f'{FORMS[mode][0]} .*{FORMS[mode][1]} .*is above'):
        run(case(mode), repeats=2)


def test_the_bar_is_the_peers_own_error():
    dtype, nan = torch.float32, float('nan')
    check_equal({'deploy': SLACK * 1e-6}, 1e-6, dtype)
    check_equal({'deploy': torch.finfo(dtype).eps}, 0.0, dtype)
    for ours, peer in ((SLACK * 1.01e-6, 1e-6), (1e-6, 0.0), (nan, 1e-6), (1e-9, nan)):
        with pytest.raises(Unequal, match=r'of deploy \S+ is above'):
            check_equal({'deploy': ours}, peer, dtype)


def test_relative_error_is_that_of_the_worst_tensor():
    wanted = {'a': torch.tensor([3.0, 4.0]), 'b': torch.tensor([10.0, 0.0])}
    got = {'a': torch.tensor([3.0, 4.5]), 'b': torch.tensor([10.0, 0.5])}
    assert relative_error(got, wanted) == pytest.approx(0.1)
    got['a'][0] = float('nan')
    assert relative_error(got, wanted) != relative_error(got, wanted)


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


def test_models_that_have_a_peer():
    assert models() == [f'repmlpnet-{arch}' for arch in (*ARCHS, 'tiny')]


def test_cases_are_every_combination():
    made = cases(
        ['repmlpnet-tiny', 'repmlpnet-t224'],
        sizes=[(448, 448), (448, 896)],
        batch=3,
        dtypes=WIDER,
        modes=MODES,
    )
    assert len(set(made)) == 2 * 2 * len(WIDER) * len(MODES)
    assert {c.batch for c in made} == {3}


def measured(form, wall, memory):
    return Measured(form=form, time=Timing(wall, wall), error=1e-7, memory=memory)


def test_table_has_one_head_for_each_mode():
    rows = []
    for mode, memory in (
        ('inference', (None, None)),
        (
            'train',
            (Memory(saved=3_000_000, peak=4_000_000), Memory(saved=6_000_000, peak=5_000_000)),
        ),
    ):
        ours = measured('deploy', (0.01, 0.02, 0.03), memory[0])
        peer = measured('NHWC', (0.03, 0.05, 0.09), memory[1])
        rows += [Row(case=case(mode), ours=ours, peer=peer)] * 2
    lines = list(table(rows, repeats=3))
    start = ['repmlpnet-tiny', '64x128', '4', 'float32', 'deploy']
    # Ratios of the rounds: 3, 2.5, 3.
    times = ['20.0', '50.0', 'NHWC', '3.00', '2.75', '-', '3.00', '3.00', '1.0e-07', '1.0e-07']
    memory = ['4', '5', '0.80', '3', '6', '0.50']
    body = [line.split() for line in lines if line.startswith('repmlpnet')]
    assert body == [start + times] * 2 + [start + times + memory] * 2
    for mode in MODES:
        assert lines.count(f'\n{mode}') == 1
    head = next(line for line in lines if line.startswith('model'))
    row = next(line for line in lines if line.startswith('repmlpnet'))
    assert head.index('error') == row.index('1.0e-07')


@pytest.fixture
def tool(root, capsys):
    """Calls tools/benchmark.py; returns exit code, standard output and errors."""
    spec = importlib.util.spec_from_file_location('benchmark', root / 'tools/benchmark.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def call(*options):
        capsys.readouterr()
        try:
            code = module.main(options)
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    return call


def test_the_tool_prints_a_table_and_writes_a_file(tool, tmp_path):
    path = tmp_path / 'rows.csv'
    threads = torch.get_num_threads()
    code, out, err = tool(
        *('repmlpnet-tiny', '--size', '64x64', '64x128', '--batch', '4', '--repeats', '2'),
        *('--mode', *MODES, '--threads', str(threads), '--csv', str(path)),
    )
    assert (code, err) == (0, '')
    assert out.startswith(f'{machine()}\n')
    lines = [line.split() for line in out.splitlines() if line.startswith('repmlpnet')]
    rows = list(csv.DictReader(path.read_text().splitlines()))
    sizes = [(row['height'], row['width']) for row in rows]
    assert sizes == [('64', '64')] * 2 + [('64', '128')] * 2 + sizes[:4]
    for line, row in zip(lines, rows, strict=True):
        assert line[1] == f'{row["height"]}x{row["width"]}'
        assert f'{1e3 * float(row["ours_wall_median_s"]):.1f}' in line
        assert f'{float(row["speedup_median"]):.2f}' in line
        assert (row['machine'], row['rounds'], row['batch']) == (machine(), '2', '4')
        assert (row['ours_peak_bytes'] == '') == (row['mode'] == 'inference')


def test_the_tool_prints_no_rows_where_forms_differ(tool, monkeypatch):
    spoil_forward(monkeypatch)
    code, out, err = tool('repmlpnet-tiny', '--size', '64x64', '--repeats', '2')
    assert code == 1
    assert err.startswith('error: nothing is timed: in torch.float32 the relative error of deploy')
    assert 'repmlpnet-tiny' not in out


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], r'expected some of repmlpnet-t224, .*repmlpnet-l256'),
        (['repmlpnet-x'], r"unknown model 'repmlpnet-x': .* repmlpnet-t224, .*repmlpnet-l256"),
        (['t224'], r"unknown model 't224': expected one of repmlpnet-t224"),
        (['repmlpnet-t224', '--dtype', 'half'], r"'half' .*float32.*bfloat16"),
        (['repmlpnet-t224', '--mode', 'eval'], r"'eval' .*inference.*train"),
        (['repmlpnet-t224', '--size', '224'], r"'224' is no HEIGHTxWIDTH"),
        (['repmlpnet-t224', '--size', '224x225'], r'repmlpnet-t224: .*224 x 225.*multiple of 224'),
        (['repmlpnet-t224', '--size', '0x0'], r'0 x 0.*at least'),
        (['repmlpnet-t224', '--batch', '0'], r"'0' must be .* at least 1"),
        (['repmlpnet-t224', '--batch', 'two'], r"'two' must be .* at least 1"),
        (['repmlpnet-t224', '--repeats', '1'], r'repeats=1 must be at least 2'),
        (['repmlpnet-t224', '--csv', '/no/such/rows.csv'], r"no folder '/no/such'"),
        (['repmlpnet-t224', '--device', 'tpu'], r"'tpu' .*cpu.*cuda"),
        (['repmlpnet-t224', '--fast'], r'--fast'),
    ],
)
def test_bad_use_ends_in_one_line(tool, options, message):
    code, _, err = tool(*options)
    assert code == 2
    assert err.startswith('error: ')
    assert err.count('\n') == 1
    assert re.search(message, err)


@pytest.mark.skipif(torch.cuda.is_available(), reason='has a CUDA device')
def test_a_missing_gpu_is_one_line(tool):
    code, _, err = tool('repmlpnet-tiny', '--size', '64x64', '--device', 'cuda')
    assert (code, err) == (2, 'error: no CUDA device here: use --device cpu\n')


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('mode', MODES)
def test_on_a_gpu(mode):
    for row in run(case(mode), repeats=3, device='cuda'):
        assert row.ratio.median > 0
        assert mode == 'inference' or row.ours.memory.peak > row.ours.memory.saved > 0
    assert torch.cuda.get_device_name() in machine('cuda')


def test_batch_below_one_is_refused():
    with pytest.raises(UserError, match='batch=0 must be at least 1'):
        cases(['repmlpnet-tiny'], sizes=[(64, 64)], batch=0, dtypes=['float32'], modes=['train'])
