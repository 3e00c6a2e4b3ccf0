"""``--gpus``: the launchers' own way, with the same options."""

import os
import sys

import pytest

from mmwave.cli import parser_of, processes
from mmwave.cli.commands import test, train
from mmwave.cli.program import main, parser
from mmwave.errors import UserError
from tests.contracts import ROOT

NAME = 'wavemlp-t_in1k'


@pytest.fixture
def started(monkeypatch):
    """What the process was replaced by."""
    calls = []

    def replace(file, arguments):
        calls.append(arguments)
        raise SystemExit(0)

    monkeypatch.setattr(os, 'execvp', replace)
    monkeypatch.setenv('PYTHON', 'another')
    return calls


@pytest.mark.parametrize(
    ('given', 'script', 'passed'),
    [
        (['train', NAME, '--gpus', '2', '--amp'], 'train.py', [NAME, '--amp']),
        (['train', '--gpus=2', NAME, '--resume'], 'train.py', [NAME, '--resume']),
        (['test', NAME, 'a.pth', '--tta', '--gpus', '2'], 'test.py', [NAME, 'a.pth', '--tta']),
    ],
)
def test_all_other_options_reach_the_processes(started, monkeypatch, given, script, passed):
    monkeypatch.setattr(sys, 'argv', ['mmwave', *given])
    with pytest.raises(SystemExit):
        main()
    folder = str(ROOT / 'tools')
    assert [call[3:] for call in started] == [
        ['mmwave', folder, '2', os.path.join(folder, script), *passed]
    ]
    assert os.environ['PYTHON'] == sys.executable


@pytest.mark.parametrize('command', [train, test])
def test_the_scripts_in_tools_have_it_too(started, monkeypatch, command):
    given = [NAME, 'a.pth'][: 2 if command is test else 1]
    monkeypatch.setattr(sys, 'argv', ['tool', *given, '--gpus', '3'])
    with pytest.raises(SystemExit):
        command.main(parser_of(command).parse_args())
    assert started[0][-len(given) - 2 :][0] == '3'
    assert started[0][-len(given) :] == given


@pytest.mark.parametrize('other', [['--launcher', 'pytorch'], ['--check-only', '2']])
def test_who_starts_the_processes_is_said_once(other, capsys):
    with pytest.raises(SystemExit) as end:
        parser().parse_args(['train', NAME, '--gpus', '2', *other])
    assert end.value.code == 2
    assert 'not allowed with argument --gpus' in capsys.readouterr().err


def test_without_launchers(monkeypatch):
    monkeypatch.setattr(processes, 'tools_folder', lambda: None)
    with pytest.raises(UserError, match='--gpus: the launchers in tools are not beside mmwave'):
        processes.start_processes('train', parser().parse_args(['train', NAME, '--gpus', '2']))
