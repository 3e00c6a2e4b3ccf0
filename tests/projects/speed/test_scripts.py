"""The scripts as a user calls them, and the suites of ``make bench``."""

import re
import shlex
import sys

import pytest

from mmwave.errors import UserError
from speed import options, suites
from speed.cases import Backbone
from speed.peers import PEERS
from speed.suites import SUITES, commands, members
from tests.contracts import ROOT
from tests.test_tools import CONFIG, HEAVY, RUN_AND_LIST, WITHOUT, call

PROJECT = 'projects/speed'
SCRIPTS = sorted(path.name for path in (ROOT / PROJECT).glob('*.py'))
# Everything but a call that is right, which begins the work.
LIGHT_CALLS = [
    *((name, '--help') for name in SCRIPTS),
    *((name, '--no-such-option') for name in SCRIPTS),
    ('benchmark_models.py',),
    ('benchmark_models.py', CONFIG, '--size', '224'),
    ('plot_speed.py',),
    ('benchmark.py', 'wavemlp-t', '--dtype', 'half'),
]
# What Python itself adds for a script, but not for runpy.
PATH = str(ROOT / PROJECT)
DOCUMENTS = [
    path
    for folder in ('docs', 'configs', 'projects')
    for path in sorted((ROOT / folder).glob('**/README.md'))
    if f'{PROJECT}/' in path.read_text()
]


@pytest.mark.parametrize('arguments', LIGHT_CALLS, ids=' '.join)
def test_help_and_bad_use_import_nothing_heavy(arguments):
    script = f'{PROJECT}/{arguments[0]}'
    done = call(sys.executable, '-c', RUN_AND_LIST, script, *arguments[1:], PYTHONPATH=PATH)
    assert done.returncode == 0, done.stderr
    *shown, code, modules = done.stdout.splitlines()
    assert not HEAVY & set(modules.split())
    if '--help' in arguments:
        assert code == '0'
        assert shown[0].startswith('usage: ')
    else:
        assert code == '2'
        assert 'error: ' in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ('library', 'command'),
    [
        ('timm', ['benchmark.py', 'gmlp-ti16', '--repeats', '2']),
        ('matplotlib', ['plot_speed.py', 'docs/speed/inference_224.csv', 'OUT.png']),
    ],
)
def test_a_missing_library_is_named_with_its_extra(library, command, tmp_path):
    script, *rest = (part.replace('OUT', str(tmp_path / 'out')) for part in command)
    script = f'{PROJECT}/{script}'
    done = call(sys.executable, '-c', WITHOUT, library, script, *rest, PYTHONPATH=PATH)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1] == (
        f"error: {library} is not installed: pip install 'mmwave-suite[bench]'"
    )


@pytest.mark.parametrize(
    ('parse', 'text', 'value'),
    [
        (options.size, '800x1333', (800, 1333)),
        (options.size, '800x1333@2', None),
        (options.size, '-8x8', None),
        (options.size_and_batch, '448x672', (448, 672, None)),
        (options.size_and_batch, '448x672@8', (448, 672, 8)),
        (options.size_and_batch, '448@8', None),
        (options.positive, '3', 3),
        (options.positive, '0', None),
        (options.positive, '1.5', None),
    ],
)
def test_values_of_options(parse, text, value):
    if value is None:
        with pytest.raises(options.argparse.ArgumentTypeError, match=re.escape(repr(text))):
            parse(text)
    else:
        assert parse(text) == value


@pytest.mark.parametrize('suite', SUITES)
def test_the_members_of_a_suite_can_be_measured(suite):
    found = members(suite)
    assert found
    for name in found:
        if SUITES[suite].script == 'benchmark.py':
            assert Backbone(name).peer
        else:
            assert (ROOT / name).is_file()


def test_peers_name_no_other_suites():
    assert {name for peer in PEERS.values() for name in peer.suites} <= set(SUITES)


def test_unknown_suites_and_configs_are_refused(monkeypatch):
    with pytest.raises(UserError, match="unknown suite 'speed': expected one of inference_224"):
        members('speed')
    monkeypatch.setattr(suites, 'ROOT', ROOT / 'docs')
    with pytest.raises(UserError, match='retinanet: no config wavemlp-s_retinanet_1x_coco'):
        members('retinanet')


@pytest.mark.parametrize('readme', [False, True])
def test_suites_without_models_are_left_out(monkeypatch, tmp_path, readme):
    monkeypatch.setattr(suites, 'members', lambda suite: ['a-b'] * (suite == 'train_224'))
    (tmp_path / 'old.csv').touch()
    if readme:
        (tmp_path / 'README.md').touch()
    measure, plot = commands(SUITES, tmp_path)
    options = SUITES['train_224'].options
    csv = ['--csv', str(tmp_path / 'train_224.csv')]
    assert measure == [f'{PROJECT}/benchmark.py', 'a-b', *options, *csv]
    tables = ['--readme', str(tmp_path / 'README.md')] if readme else []
    files = [str(tmp_path / name) for name in ('old.csv', 'speed.png')]
    assert plot == [f'{PROJECT}/plot_speed.py', *files, *tables]


def parsers():
    names = ('benchmark', 'benchmark_models', 'run_suites')
    return {f'{PROJECT}/{name}.py': __import__(name).parser() for name in names}


@pytest.mark.parametrize('document', DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_in_the_documents_are_right(document):
    found = re.findall(rf'^python ({PROJECT}/\w+\.py) (.*)$', document.read_text(), re.MULTILINE)
    known = parsers()
    for script, rest in found:
        assert (ROOT / script).is_file()
        if script in known:
            args = known[script].parse_args(shlex.split(rest, comments=True))
            for model in getattr(args, 'models', []):
                assert Backbone(model)
            for config in getattr(args, 'configs', []):
                assert (ROOT / config).is_file()


def test_the_commands_of_the_suites_are_right():
    for script, *rest in commands(SUITES, ROOT / 'docs/speed'):
        if script in parsers():
            parsers()[script].parse_args(rest)


def test_a_suite_that_fails_stops_the_others(monkeypatch, tmp_path, capsys):
    import run_suites

    monkeypatch.setattr(suites, 'commands', lambda *given: iter([['one.py'], ['two.py']]))
    called = []

    def fail(command, cwd):
        called.append(command[1])
        return type('Done', (), {'returncode': 1})

    monkeypatch.setattr(run_suites.subprocess, 'run', fail)
    assert run_suites.main(['--out', str(tmp_path / 'new')]) == 1
    assert called == ['one.py']
    assert run_suites.main(['--out', str(tmp_path / 'new'), '--dry-run']) == 0
    assert called == ['one.py']
    assert capsys.readouterr().out.splitlines()[-1] == '$ two.py'
