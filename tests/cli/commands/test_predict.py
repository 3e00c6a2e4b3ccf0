"""``mmwave predict``: progress, last lines, exit codes; :func:`mmwave.apis.predict` does the work.

Here a stand-in for it, with the same arguments.
"""

import inspect
import sys

import pytest

from mmwave.apis import predict
from mmwave.apis.predicting.run import NothingPredictedError, Predictions
from mmwave.cli.commands import predict as command
from mmwave.cli.program import main


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Run the command with a picture, an output folder and other arguments; return what it got."""
    (tmp_path / 'a.png').write_bytes(b'x')
    (tmp_path / 'config.py').write_text('')
    signature = inspect.signature(predict)
    got = {}

    def stand_in(config, checkpoint, inputs, **options):
        signature.bind(config, checkpoint, inputs, **options)
        got.update(options, inputs=inputs)
        options['on_progress'](0, 2)
        options['on_progress'](1, 2)
        options['on_warning']('b.png is skipped: empty')
        if got.get('raises'):
            raise got['raises']
        return Predictions('detection', options['out'], pictures=3, objects=17, seconds=1.2)

    monkeypatch.setattr('mmwave.apis.predict', stand_in, raising=False)

    def run(*arguments, raises=None):
        got['raises'] = raises
        out = ['--out', str(tmp_path / 'out')]
        words = [str(tmp_path / 'config.py'), 'w.pth', str(tmp_path / 'a.png'), *out, *arguments]
        monkeypatch.setattr(sys, 'argv', ['mmwave', 'predict', *words])
        main()
        return got

    return run


def test_the_end(call, tmp_path, capsys):
    got = call('--json', 'coco', '--thr', '.5', '--tta', '--amp', '--batch', '4', '--deploy')
    shown = capsys.readouterr()
    assert shown.out == f'3 images, 17 objects, 0.4 s each -> {tmp_path / "out"}\n'
    assert shown.err == 'warning: b.png is skipped: empty\n'
    assert (got['json'], got['thr'], got['batch']) == ('coco', 0.5, 4)
    assert [got[name] for name in ('tta', 'amp', 'deploy', 'overwrite')] == [True] * 3 + [False]


def test_progress_on_a_terminal(call, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, 'isatty', lambda: True, raising=False)
    monkeypatch.setenv('COLUMNS', '100')
    call()
    assert 'warning: b.png is skipped: empty' in capsys.readouterr().err


def test_progress_elsewhere_is_a_line_from_time_to_time(call, capsys, monkeypatch):
    monkeypatch.setattr(command, '_SECONDS', 0.0)
    call()
    assert capsys.readouterr().err.splitlines()[0] == '1 of 2'


def test_nothing_read_is_one_line_and_exit_code_1(call, capsys):
    with pytest.raises(SystemExit) as end:
        call(raises=NothingPredictedError('nothing could be read of 1 input: a.png: empty'))
    assert end.value.code == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == 'error: nothing could be read of 1 input: a.png: empty'
    assert not shown.out


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (['--batch', '0'], 'error: --batch 0: at least 1 picture is needed'),
        (['--thr', '2'], 'error: --thr 2.0: expected a score from 0 to 1'),
    ],
)
def test_wrong_calls_end_before_the_work(call, capsys, arguments, line):
    with pytest.raises(SystemExit) as end:
        call(*arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith(line)
