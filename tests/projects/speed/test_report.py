"""The benchmark's table, its file, and the tool."""

import csv
import importlib.util
import re
from dataclasses import replace

import pytest
import torch

from mmwave.inspect.timing import Timing, machine
from speed import benchmark, cases
from speed.cases import MODES, Measured, Result, Row
from speed.equality import Unequal
from speed.forms import Label, Memory
from speed.report import as_csv, backbone_layout, backbone_records, table
from tests.projects.speed.tiny import OURS, PEER, case

pytestmark = pytest.mark.usefixtures('tiny')

OURS_HOLD, PEER_HOLDS, COMPILED_HOLDS = (
    Memory(saved=saved * 10**6, peak=peak * 10**6) for saved, peak in ((3, 4), (6, 5), (4, 8))
)


def measured(role, name, layout, wall, memory=None, **fields):
    label = Label(role=role, name=name, layout=layout, compiled=fields.pop('compiled', False))
    cpu = tuple(2 * seconds for seconds in wall)
    values = dict(time=Timing(wall, cpu), error=1e-7, memory=memory, macs=10**7) | fields
    return Measured(label=label, **values)


def results():
    """A deploy form, eager and compiled, one that is unequal, and the peer's two, in both modes."""
    for mode, (ours, theirs, compiled) in (
        ('inference', (None,) * 3),
        ('train', (OURS_HOLD, PEER_HOLDS, COMPILED_HOLDS)),
    ):
        peer = measured('peer', 'published', 'NHWC', (0.03, 0.05, 0.09), theirs)
        again = measured('peer', 'published', 'NCHW', (0.02, 0.03, 0.06), compiled, compiled=True)
        forms = [
            measured('ours', 'deploy', '', (0.01, 0.02, 0.03), ours),
            measured('ours', 'deploy', '', (0.01, 0.02, 0.03), ours, compiled=True),
            measured('ours', 'other', '', (), error=0.5, time=None, problem='too far'),
            peer,
            again,
        ]
        rows = [
            Row(case=case(mode), form=f, reference=peer, compiled=again, gemm=1e10) for f in forms
        ]
        yield Result(case=case(mode), rows=tuple(rows), note='no library')


def test_table_has_one_head_for_each_mode():
    lines = list(table([r for r in results() for _ in range(2)], backbone_layout, repeats=3))
    start = ['repmlpnet-tiny', '64x128', '4', 'float32']
    # Ratios of the rounds: 3, 2.5, 3. Ten million MACs in 20 ms, at 10 GFLOP/s.
    eager = ['deploy', 'eager', '20.0', '3.00', '2.75', '-', '3.00', '3.00', '10%', '1.0e-07']
    # Over the compiled peer 2, 1.5, 2.
    compiled = ['deploy', 'compiled', *eager[2:8], '2.00', *eager[8:]]
    unequal = ['other', 'eager', 'unequal', '5.0e-01']
    peer = ['published', 'NHWC', 'eager', '50.0', '1.00', '1.00', '-', '1.00', '1.00', '4%']
    memory, over_compiled = ['4', '0.80', '3', '0.50'], ['4', '0.50', '3', '0.75']
    body = [line.split() for line in lines if line.startswith('repmlpnet')]
    assert body[:4] == [start + x for x in (eager, compiled, unequal, [*peer, '1.0e-07'])]
    assert body[5:9] == body[:4]
    trained = body[10:14]
    assert trained[:3] == [
        start + eager + memory,
        start + compiled + over_compiled,
        start + unequal,
    ]
    assert trained[3] == [*start, *peer, '1.0e-07', '5', '1.00', '6', '1.00']
    assert lines.count('# other: too far') == lines.count('# repmlpnet-tiny: no library') == 4
    for mode in MODES:
        assert lines.count(f'\n{mode}') == 1
    head = next(line for line in lines if line.startswith('model'))
    row = next(line for line in lines if line.startswith('repmlpnet'))
    assert head.index('error') == row.index('1.0e-07')


def test_records_are_exact_and_name_what_they_compare():
    rows = list(csv.DictReader(as_csv(backbone_records(results(), 'a machine')).splitlines()))
    assert len(rows) == 10
    assert {row['machine'] for row in rows} == {'a machine'}
    for row, mode in zip(rows, ['inference'] * 5 + ['train'] * 5, strict=True):
        assert (row['model'], row['mode'], row['dtype']) == ('repmlpnet-tiny', mode, 'float32')
        assert (row['height'], row['width'], row['batch']) == ('64', '128', '4')
        assert row['peer'] == 'published NHWC'
        assert row['compiled_peer'] == 'published NCHW compiled'
        assert (row['peak_bytes'] == '') == (mode == 'inference' or row['form'] == 'other')
    eager, compiled, unequal, *_ = rows
    assert (eager['role'], eager['form'], eager['run']) == ('ours', 'deploy', 'eager')
    # Quartiles of 2.5, 3, 3 and of 1.5, 2, 2.
    speed_up = [f'speedup_{x}' for x in ('quartile1', 'median', 'quartile3')]
    assert [float(eager[x]) for x in speed_up] == pytest.approx([2.75, 3, 3])
    assert eager['compiled_speedup_median'] == ''
    assert float(eager['wall_median_s']) == pytest.approx(0.02)
    assert float(eager['cpu_median_s']) == pytest.approx(0.04)
    assert [float(compiled[f'compiled_{x}']) for x in speed_up] == pytest.approx([1.75, 2, 2])
    assert float(eager['roofline_share']) == pytest.approx(0.1)
    assert (unequal['problem'], unequal['error'], unequal['wall_median_s']) == (
        'too far',
        '0.5',
        '',
    )


@pytest.fixture
def tool(root, capsys):
    """Call projects/speed/benchmark.py; return exit code, standard output and errors."""
    path = root / 'projects/speed/benchmark.py'
    spec = importlib.util.spec_from_file_location('benchmark_script', path)
    module = importlib.util.module_from_spec(spec)

    def call(*options):
        spec.loader.exec_module(module)
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
        *('repmlpnet-tiny', '--size', '64x64', '64x128@2', '--batch', '4', '--repeats', '2'),
        *('--mode', *MODES, '--threads', str(threads), '--csv', str(path)),
    )
    assert (code, err) == (0, '')
    assert out.startswith(f'{machine()}\n')
    lines = [line.split() for line in out.splitlines() if line.startswith('repmlpnet')]
    rows = list(csv.DictReader(path.read_text().splitlines()))
    sizes = [(row['height'], row['width'], row['batch']) for row in rows]
    per_mode = [len(OURS[mode] + PEER) for mode in MODES]
    assert sizes == [
        size for n in per_mode for size in (('64', '64', '4'), ('64', '128', '2')) for _ in range(n)
    ]
    for line, row in zip(lines, rows, strict=True):
        assert line[1:3] == [f'{row["height"]}x{row["width"]}', row['batch']]
        assert f'{1e3 * float(row["wall_median_s"]):.1f}' in line
        assert f'{float(row["speedup_median"]):.2f}' in line
        assert (row['machine'], row['rounds']) == (machine(), '2')
        assert (row['peak_bytes'] == '') == (row['mode'] == 'inference')


def test_the_tool_goes_on_where_a_form_is_unequal_and_fails(tool, spoilt, tmp_path):
    spoilt('deploy')
    path = tmp_path / 'rows.csv'
    options = ('--size', '64x64', '64x128', '--repeats', '2', '--csv', str(path))
    code, out, err = tool('repmlpnet-tiny', *options)
    assert (code, err) == (1, '')
    rows = [line.split() for line in out.splitlines() if line.startswith('repmlpnet')]
    assert [row[6] == 'unequal' for row in rows] == [True, False, False, False] * 2
    kept = list(csv.DictReader(path.read_text().splitlines()))
    assert [row['speedup_median'] == '' for row in kept] == [True, False, False, False] * 2


def test_the_tool_goes_on_where_an_op_is_wrong_and_fails(tool, monkeypatch):
    def wrong(dtype, device):
        raise Unequal('phase_mix: backend')

    peers = cases.PEERS | {'wavemlp': replace(cases.PEERS['wavemlp'], check_ops=wrong)}
    monkeypatch.setattr(cases, 'PEERS', peers)
    options = ('--size', '64x64', '--repeats', '2')
    code, out, err = tool('wavemlp-t', 'repmlpnet-tiny', *options)
    assert (code, err) == (1, 'error: wavemlp-t: nothing is timed: phase_mix: backend\n')
    rows = [line for line in out.splitlines() if line.startswith('repmlpnet-tiny')]
    assert len(rows) == 4


def test_the_tool_compiles_and_times_contenders_where_asked(tool, monkeypatch):
    seen = {}

    def pretend(case, **options):
        seen.update(options)
        return next(results())

    monkeypatch.setattr(benchmark, 'run', pretend)
    assert tool('repmlpnet-tiny', '--compile', '--contenders', '--size', '64x64')[0] == 1
    assert seen == dict(
        repeats=7, device='cpu', compiler='inductor', contenders=('swin-t', 'convnext-t')
    )


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ([], r'expected some of .*repmlpnet-t224, .*repmlpnet-l256'),
        (['repmlpnet-x'], r"unknown model 'repmlpnet-x': .* repmlpnet-t224, .*repmlpnet-l256"),
        (['t224'], r"unknown model 't224': expected one of .*repmlpnet-t224"),
        (['repmlpnet-t224', '--dtype', 'half'], r"'half' .*float32.*bfloat16"),
        (['repmlpnet-t224', '--mode', 'eval'], r"'eval' .*inference.*train"),
        (['repmlpnet-t224', '--size', '224'], r"'224' is no HEIGHTxWIDTH"),
        (['repmlpnet-t224', '--size', '224x224@0'], r'batch=0 must be at least 1'),
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
