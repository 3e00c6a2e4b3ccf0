"""The plot and the tables, from files as the benchmark writes them."""

import importlib.util
from types import SimpleNamespace

import pytest

from mmwave.errors import UserError
from mmwave.inspect.timing import Timing
from speed.cases import Case, Measured, Result, Row
from speed.forms import NO_KERNEL, Label, Memory
from speed.plot import draw, markdown, read, replace_table, select
from speed.report import as_csv, backbone_records, whole_records
from tests.projects.speed.tiny import case

pytestmark = pytest.mark.usefixtures('tiny')
HEADINGS = ('**Inference**', '**Training step', '**Other models')


def measured(role, name, layout, seconds, memory=None, compiled=False, **fields):
    label = Label(role=role, name=name, layout=layout, compiled=compiled)
    time = Timing((0.9 * seconds, seconds, 1.1 * seconds), (seconds,) * 3)
    return Measured(label=label, **dict(time=time, error=1e-7, memory=memory, macs=10**9) | fields)


def result(seconds, *, peer=0.1, compiled=None, alone=False, **options):
    """Ours in ``seconds`` beside a peer in 100 ms, 80 where compiled, and another model."""
    peer = None if alone else measured('peer', 'published', 'NHWC', peer)
    again = measured('peer', 'published', 'NCHW', 0.08, compiled=True) if compiled else None
    forms = [
        measured('ours', 'deploy', '', seconds),
        measured('ours', NO_KERNEL, '', 4 * seconds),
        measured('ours', 'train form', '', 2 * seconds),
        measured('contender', 'net', 'NCHW', 0.3, error=None),
        measured('contender', 'net', 'NHWC', 0.2, error=None),
        measured('contender', 'net', 'NCHW', 0.25, error=None),
    ]
    if compiled:
        forms.append(measured('ours', 'deploy', '', compiled, compiled=True))
    forms += [form for form in (peer, again) if form]
    which = case(**options)
    rows = [Row(case=which, form=f, reference=peer, compiled=again, gemm=1e11) for f in forms]
    return Result(case=which, rows=tuple(rows))


def training(problem=''):
    peer = measured('peer', 'published', 'NCHW', 0.4, Memory(saved=90_000_000, peak=100_000_000))
    time = None if problem else Timing((0.5,) * 3, (0.5,) * 3)
    lean = measured('ours', 'lean', '', 0.5, Memory(saved=45_000_000, peak=60_000_000))
    lean = Measured(**vars(lean) | {'time': time, 'problem': problem})
    again = measured('ours', 'with_cp', '', 0.8, Memory(saved=5_000_000, peak=30_000_000))
    which = case('train')
    rows = [Row(case=which, form=f, reference=peer, gemm=1e11) for f in (lean, again, peer)]
    return Result(case=which, rows=tuple(rows))


@pytest.fixture
def write(tmp_path):
    def to(name, *results, machine='a machine'):
        path = tmp_path / name
        path.write_text(as_csv(backbone_records(results, machine)))
        return path

    return to


def body(text):
    return [line for line in text.splitlines() if line.startswith('| repmlpnet')]


def test_tables_show_gains_and_losses(write):
    path = write(
        'a.csv',
        result(0.05, compiled=0.1),
        result(0.2, dtype='bfloat16'),
        result(0.05, alone=True, size=(64, 100)),
        training(),
    )
    text = markdown([path])
    assert text.startswith('Measured on a machine.\n\n**Inference**\n\n| model |')
    start, nchw, nhwc = '| repmlpnet-tiny | 4 of 64 ×', '(published, NCHW)', '(published, NHWC)'
    assert body(text) == [
        # 2 GFLOP in 50 ms are 40 of 100 GFLOP/s.
        f'{start} 128 | float32 | eager | 100 ms {nhwc} | 50 ms | **2.00 ×** | **0.50 ×** '
        '| **1.00 ×** | 40 % |',
        f'{start} 128 | float32 | compiled | 80 ms {nchw} | 100 ms | **0.80 ×** | – | – | 20 % |',
        f'{start} 128 | bfloat16 | eager | 100 ms {nhwc} | 200 ms | **0.50 ×** | **0.12 ×** '
        '| **0.25 ×** | 10 % |',
        f'{start} 100 | float32 | eager | size not accepted | 50 ms | – | – | – | 40 % |',
        f'{start} 128 | float32 | eager | 400 ms {nchw} | 500 ms | **0.80 ×** | 45 MB | 0.50 × '
        '| 0.60 × | **0.50 ×** | 0.30 × |',
    ]
    # Of two layouts the faster.
    assert '| net | 4 of 64 × 128 | float32 | inference | eager | 200 ms |' in text
    assert '300 ms' not in text
    assert '250 ms' not in text
    assert [text.count(heading) for heading in HEADINGS] == [1, 1, 1]
    for table in text.split('\n\n'):
        widths = {line.count('|') for line in table.splitlines() if line.startswith('|')}
        assert len(widths) <= 1


def test_what_was_not_timed_is_said(write):
    (line,) = body(markdown([write('a.csv', training('too far'))]))
    assert '| – | unequal |' in line


def test_machines_are_kept_apart_and_later_files_count(write):
    paths = [
        write('a.csv', result(0.05)),
        write('b.csv', result(0.025, peer=0.05)),
        write('c.csv', result(0.1), machine='another'),
    ]
    text = markdown(paths)
    first, second = text.split('Measured on ')[1:]
    assert ['| 50 ms (published, NHWC) | 25 ms | **2.00 ×**' in line for line in body(first)] == [
        True
    ]
    assert ['**1.00 ×**' in line for line in body(second)] == [True]
    assert second.startswith('another.')


def test_a_table_of_whole_models(write, tmp_path):
    model = SimpleNamespace(name='some_detector', task=SimpleNamespace(kind='detector'))
    which = Case(model=model, size=(64, 96), dtype='float32')

    def row(train, deploy):
        reference, form = (
            Measured(label=Label(role='ours', name=''), time=Timing((s,) * 2, (s,) * 2), error=0.0)
            for s in (train, deploy)
        )
        return Row(case=which, form=form, reference=reference)

    whole = Result(case=which, rows=(row(2.0, 1.6), row(0.5, 1.0)), boxes=1)
    path = tmp_path / 'whole.csv'
    path.write_text(as_csv(whole_records([whole], 'a machine')))
    text = markdown([write('a.csv', result(0.05)), path])
    line = '| some_detector | 64 × 96 | float32 | 2000 ms | 1600 ms | **1.25 ×** | 500 to 1000 ms '
    assert f'{line}| **0.50 ×** | 25 % |' in text.splitlines()
    assert text.count('Measured on') == 1
    assert 'Whole models' not in markdown([write('a.csv', result(0.05))])
    draw([write('a.csv', result(0.05)), path], tmp_path / 'out.png')  # it has no bar of its own


def test_the_plot_has_a_bar_for_each_speed_up(write, tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    bars, texts, lines = [], [], []
    bar, annotate, axhline = Axes.bar, Axes.annotate, Axes.axhline

    def watch(self, x, height, *args, **options):
        if args:
            bars.append((round(height, 6), args[1], bool(options['hatch'])))
        return bar(self, x, height, *args, **options)

    def note(self, text, *args, **options):
        texts.append((text, options['color']))
        return annotate(self, text, *args, **options)

    monkeypatch.setattr(Axes, 'bar', watch)
    monkeypatch.setattr(Axes, 'annotate', note)
    monkeypatch.setattr(Axes, 'axhline', lambda s, y, **o: lines.append(y) or axhline(s, y, **o))
    path = write(
        'a.csv',
        result(0.05, compiled=0.1),
        result(0.2, dtype='bfloat16'),
        result(0.05, size=(64, 64)),
        result(0.05, alone=True, size=(64, 100)),
        training(),
    )
    out = tmp_path / 'a.png'
    draw([path], out)
    # Standing on 1, so that losses hang below it; hatched where compiled.
    assert bars == [(1, 1, False), (-0.5, 1, False), (-0.2, 1, True), (1, 1, False)]
    black, red = 'black', '#c1121f'
    assert texts == [('2.00', black), ('0.50', red), ('0.80', red), ('2.00', black)]
    assert lines == [1, 1]
    assert out.read_bytes().startswith(b'\x89PNG')
    with pytest.raises(UserError, match='nothing to draw'):
        draw([write('b.csv', training())], out)


def test_files_of_others_are_refused(tmp_path):
    for text in ('', 'a,b\n1,2\n'):
        path = tmp_path / 'other.csv'
        path.write_text(text)
        with pytest.raises(UserError, match=r'other\.csv is no file that benchmark\.py'):
            read([path])
    with pytest.raises(UserError, match=r'none\.csv cannot be read'):
        read([tmp_path / 'none.csv'])


def test_rows_are_selected_by_their_fields(write):
    rows = read([write('a.csv', result(0.05), training())])
    assert {row['form'] for row in select(rows, role='ours', mode='train')} == {'lean', 'with_cp'}


def test_a_table_goes_between_its_markers():
    text = 'a\n<!-- speed:begin -->\nold\n\nold\n<!-- speed:end -->\nb\n'
    fresh = 'a\n<!-- speed:begin -->\n| \\1 |\n<!-- speed:end -->\nb\n'
    assert replace_table(text, '| \\1 |') == fresh == replace_table(fresh, '| \\1 |')
    empty = 'a\n<!-- speed:begin -->\n<!-- speed:end -->\nb\n'
    assert replace_table(empty, '| \\1 |') == fresh
    for wrong in ('a', text + text, '<!-- speed:end -->\n<!-- speed:begin -->\n'):
        with pytest.raises(UserError, match='one pair of lines'):
            replace_table(wrong, 'new')


@pytest.fixture
def tool(root):
    spec = importlib.util.spec_from_file_location(
        'plot_speed', root / 'projects/speed/plot_speed.py'
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_the_tool_draws_and_fills_a_readme(tool, write, tmp_path, capsys):
    path, out, readme = write('a.csv', result(0.05)), tmp_path / 'a.png', tmp_path / 'README.md'
    readme.write_text('<!-- speed:begin -->\n<!-- speed:end -->\n')
    assert tool([str(path), str(out), '--readme', str(readme)]) == 0
    assert out.exists()
    assert '**2.00 ×**' in readme.read_text()
    before = readme.read_text()
    for bad, message in (
        ([str(path), str(tmp_path / 'a.txt')], 'must end in .png'),
        ([str(tmp_path / 'no.csv'), str(out), '--readme', str(readme)], 'cannot be read'),
        ([str(path), str(out), '--readme', str(path)], 'one pair of lines'),
        ([str(path), str(out), '--readme', str(tmp_path / 'no.md')], 'no.md'),
    ):
        assert tool(bad) == 2
        err = capsys.readouterr().err
        assert err.startswith('error: ')
        assert message in err
    assert readme.read_text() == before
