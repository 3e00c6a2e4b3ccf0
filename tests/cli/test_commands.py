"""``mmwave`` (:mod:`mmwave.__main__`): what all words have by :mod:`mmwave.cli.parsers`."""

import re
import shlex
import subprocess
import sys
import time

import pytest

import mmwave
from mmwave.cli.program import COMMANDS, main, parser
from tests.contracts import ROOT

# What a command imports once its arguments are known to be right.
HEAVY = {'cv2', 'matplotlib', 'mmcv', 'mmdet', 'mmengine', 'mmpretrain', 'mmseg', 'numpy', 'torch'}
SCREEN = 40
CALL = """
import sys
sys.argv[0] = 'mmwave'
from mmwave.cli.program import main
try:
    main()
except SystemExit as end:
    print(end.code)
print(*sys.modules)
"""
WORD = pytest.mark.parametrize('word', COMMANDS)


def call(*arguments):
    return subprocess.run(
        [sys.executable, '-c', CALL, *arguments], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize('arguments', [(), ('--help',), *((word, '--help') for word in COMMANDS)])
def test_help_fits_a_screen(arguments, monkeypatch):
    monkeypatch.setenv('COLUMNS', '100')
    done = call(*arguments)
    *shown, modules = done.stdout.splitlines()
    assert shown[0].startswith('usage: mmwave')
    assert len(shown) <= SCREEN
    assert not HEAVY & set(modules.split())


@WORD
def test_help_ends_with_two_calls_that_parse(word):
    examples = COMMANDS[word].EXAMPLES
    assert len(examples) == 2
    shown = call(word, '--help').stdout.splitlines()[-4:-2]
    assert [line.strip() for line in shown] == [f'mmwave {word} {e}' for e in examples]
    for example in examples:
        assert parser().parse_args([word, *shlex.split(example)]).command == word


@WORD
def test_an_unknown_option_is_one_line_that_names_its_neighbour(word):
    example = shlex.split(COMMANDS[word].EXAMPLES[0])
    options = parser().parse_args([word, *example]).parser._option_string_actions
    options = [o for o in options if o.startswith('--') and len(o) > 6 and o != '--help']
    wrong = options[0][:-1] + '_'
    done = call(word, *example, wrong)
    (line,) = done.stderr.splitlines()
    assert line == (
        f'error: unrecognized arguments: {wrong}; did you mean {line.split("did you mean ")[1]}'
    )
    assert options[0] in line.split('did you mean ')[1]
    code, modules = done.stdout.splitlines()
    assert code == '2'
    assert not HEAVY & set(modules.split())


@pytest.mark.parametrize(
    ('arguments', 'line'),
    [
        (['tran'], "error: argument COMMAND: invalid choice: 'tran' .*; did you mean train"),
        (['--versoin'], r'error: .* \(mmwave --help\)'),
        (['train'], r'error: the following arguments are required: config \(mmwave train --help\)'),
        (
            ['train', 'wavemlp-t_mask_rcnn_1x_coco'],
            'error: no such config: wavemlp-t_mask_rcnn_1x_coco; '
            'did you mean wavemlp-t_mask-rcnn_1x_coco',
        ),
        (
            ['init', 'wavemlp-t_mask_rcnn_1x_coco', '--folders', 'a,b'],
            'error: no such config: wavemlp-t_mask_rcnn_1x_coco; did you mean',
        ),
        (
            ['init', 'wavemlp-t_in1k', '--folders', 'gone,there'],
            'error: --folders .*gone: no such folder',
        ),
    ],
)
def test_wrong_words_are_one_line(arguments, line):
    done = call(*arguments)
    (said,) = done.stderr.splitlines()
    assert re.match(line, said)
    code, modules = done.stdout.splitlines()
    assert code == '2'
    assert not HEAVY & set(modules.split())


def test_the_version(capsys, monkeypatch):
    monkeypatch.setattr(sys, 'argv', ['mmwave', '--version'])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    assert capsys.readouterr().out == f'mmwave {mmwave.__version__}\n'


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, '-m', 'mmwave', '--version'], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout == f'mmwave {mmwave.__version__}\n'


def test_help_is_there_at_once():
    def best(*arguments):
        times = []
        for _ in range(5):
            start = time.perf_counter()
            subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True)
            times.append(time.perf_counter() - start)
        return min(times)

    # Beside what Python itself needs, which on a loaded machine is anything.
    bare = best('-c', 'import argparse')
    assert best('-m', 'mmwave', '--help') < max(0.3, 4 * bare)


@pytest.mark.parametrize('shell', ['bash', 'zsh', 'tcsh'])
def test_completion(shell):
    done = call('--print-completion', shell)
    assert done.stdout.splitlines()[-2] == '0'
    for word in COMMANDS:
        assert word in done.stdout
    assert 'auto-scale-lr' in done.stdout
