"""Processes that fail in every way, and what their launcher says of them."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time

import pytest
import torch

from mmwave.apis.failures import Failure
from mmwave.apis.launch import Ended, _more, launch, oom_kills, summarize
from mmwave.engine.exit_codes import PREEMPTED, UNAVAILABLE, USER_ERROR

HOST = socket.gethostname()
TOOL = """
import argparse, os, signal, sys, time
from mmwave.cli import run_tool
from mmwave.errors import UserError
rank = int(os.environ['RANK'])
def main(args):
{body}
run_tool(main, argparse.ArgumentParser())
"""


def start(folder, body, *options, ranks=2):
    script = folder / 'tool.py'
    script.write_text(TOOL.format(body=textwrap.indent(textwrap.dedent(body), '    ')))
    temporary = folder / 'tmp'
    temporary.mkdir(exist_ok=True)
    return subprocess.Popen(
        [
            *(sys.executable, '-m', 'mmwave.apis.launch', *(options or ('--standalone',))),
            *('--nproc-per-node', str(ranks), str(script)),
        ],
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'TMPDIR': str(temporary)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def launched(folder, body, *options):
    process = start(folder, body, *options)
    _, text = process.communicate(timeout=100)
    assert not list((folder / 'tmp').glob('*')), 'what the launcher wrote is left'
    return process.returncode, text.splitlines()


@pytest.mark.slow
def test_a_user_s_error_of_every_process_is_one_line(tmp_path):
    code, lines = launched(tmp_path, "raise UserError('lr is none')")
    assert (code, lines) == (USER_ERROR, ['error: lr is none'])


def test_an_exception_of_one_process_is_told_with_its_traceback(tmp_path):
    body = """
    if rank == 0:
        time.sleep(60)
    raise KeyError('lost')
    """
    code, lines = launched(tmp_path, body)
    assert code == 1
    assert lines[0] == 'Traceback (most recent call last):'
    assert f'rank 1 of 2 on {HOST}' in lines
    assert lines[-3:] == [
        f'error: the run failed on {HOST}:',
        "  rank 1: exit code 1: KeyError: 'lost'",
        '  rank 0: stopped, or lost the others, after rank 1 failed',
    ]
    assert not [line for line in lines if 'torch/distributed' in line]


@pytest.mark.slow
def test_an_exception_of_all_processes_is_told_once(tmp_path):
    code, lines = launched(tmp_path, "raise KeyError('lost')")
    assert code == 1
    assert len([line for line in lines if line.startswith('Traceback')]) == 1
    assert len([line for line in lines if 'KeyError' in line and ': exit code' in line]) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ('number', 'hint'), [(signal.SIGKILL, 'memory'), (signal.SIGBUS, '--shm-size')]
)
def test_a_process_that_is_killed(tmp_path, number, hint):
    body = f"""
    if rank == 1:
        os.kill(os.getpid(), {number:d})
    time.sleep(60)
    """
    code, lines = launched(tmp_path, body)
    assert code == 128 + number
    assert f'rank 1: killed by signal {number:d} ({number.name}): ' in lines[-2]
    assert hint in lines[-2]


@pytest.mark.slow
def test_processes_that_leave_one_after_another_when_they_are_asked_to(tmp_path):
    """The first to leave has torch stop the others, which are still writing."""
    body = """
    signal.signal(signal.SIGTERM, lambda *_: None)
    time.sleep(0.2 if rank else 3)
    return 75
    """
    assert launched(tmp_path, body) == (PREEMPTED, [])


@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize('saves', [True, False])
def test_a_signal_is_passed_on_and_the_exit_code_is_that_of_the_processes(tmp_path, saves, number):
    body = f"""
    def asked(*_):
        time.sleep(1)
        sys.exit({PREEMPTED} if {saves} else 1)
    signal.signal({number:d}, asked)
    open(os.path.join({str(tmp_path)!r}, f'ready{{rank}}'), 'w')
    time.sleep(60)
    """
    process = start(tmp_path, body)
    end = time.monotonic() + 60
    while len(list(tmp_path.glob('ready*'))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(number)
    _, text = process.communicate(timeout=60)
    if saves:
        assert (process.returncode, text) == (PREEMPTED, '')
    else:
        assert process.returncode == 128 + number
        assert text == f'error: the run was stopped by {number.name}\n'


@pytest.mark.slow
def test_a_port_in_use_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(('', 0))
        taken.listen()
        port = taken.getsockname()[1]
        options = ('--master-addr', '127.0.0.1', '--master-port', str(port))
        code, lines = launched(tmp_path, 'pass', '--nnodes', '1', '--node-rank', '0', *options)
    assert code == USER_ERROR
    assert lines == [f'error: port {port} is in use on {HOST}: set PORT= to a free one']


def ended(rank, code, kind=None, reason='', time=0.0):
    return Ended(rank, code, kind, reason, time)


LOST = ended(0, 1, 'peer', 'lost another process of the run (Broken pipe)', time=1.0)


@pytest.mark.parametrize(
    ('processes', 'code', 'first'),
    [
        # Whoever lost the others is not the cause, even where it noticed first.
        ([LOST, ended(1, 1, 'other', 'KeyError', time=2.0)], 1, 'rank 1: exit code 1: KeyError'),
        ([LOST, ended(1, -9, time=2.0)], 137, 'rank 1: killed by signal 9'),
        ([ended(0, -15, time=1.0), ended(1, 3, time=2.0)], 3, 'rank 1: exit code 3, see above'),
        ([LOST], 1, 'rank 0: exit code 1: lost another process'),
        ([ended(0, -15), ended(1, -15)], 143, 'ranks 0, 1: killed by signal 15 (SIGTERM)'),
        (
            [ended(1, 1, 'other', 'KeyError'), ended(0, 1, 'other', 'KeyError')],
            1,
            'ranks 0, 1: exit code 1: KeyError',
        ),
        ([LOST, ended(1, USER_ERROR, 'user', 'no lr')], USER_ERROR, None),
        ([LOST, ended(1, PREEMPTED, 'left')], PREEMPTED, None),
        ([ended(0, -15), ended(1, PREEMPTED, 'left')], PREEMPTED, None),
        ([ended(0, PREEMPTED, 'left'), ended(1, -9)], 137, 'rank 1: killed by signal 9'),
    ],
)
def test_the_cause_comes_first_and_gives_the_exit_code(capsys, processes, code, first):
    assert summarize(processes) == code
    lines = capsys.readouterr().err.splitlines()
    assert lines[1].strip().startswith(first) if first else not lines


def test_a_process_that_hung_is_killed_and_is_not_told_again(capsys):
    said = ended(0, UNAVAILABLE, None, 'process 1 has given no sign of life', 1.0)
    assert summarize([said, ended(1, -signal.SIGKILL, time=31.0)]) == UNAVAILABLE
    assert capsys.readouterr().err == ''


@pytest.mark.parametrize(
    ('counted', 'text'),
    [(True, 'the memory did not suffice'), (False, 'not by the kernel'), (None, 'most often')],
)
def test_what_a_kill_says_of_memory(capsys, counted, text):
    summarize([ended(0, -9)], out_of_memory=counted)
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ('before', 'after', 'grown'),
    [
        ({}, {}, None),
        ({'group': 1, 'machine': 5}, {'group': 1, 'machine': 6}, False),  # of another group
        ({'group': 1}, {'group': 2}, True),
        ({'machine': 5}, {'machine': 6}, True),
        ({'group': 1}, {'machine': 6}, None),
    ],
)
def test_the_counter_of_the_own_group_is_believed(before, after, grown):
    assert _more(before, after) is grown


def test_the_first_to_fail_gives_the_exit_code():
    late, early = ended(0, 1, time=31.0), ended(1, USER_ERROR, time=30.0)
    assert summarize([late, early]) == USER_ERROR


def test_counters_of_the_kernel_are_numbers():
    assert all(count >= 0 for count in oom_kills().values())


def test_a_failure_s_line_needs_no_place():
    assert Failure('other', 'KeyError').line == 'KeyError'


def test_machines_that_never_come_are_one_line(monkeypatch, capsys):
    given = ['--nnodes', '4', '--node-rank', '0', '--master-addr', '10.0.0.1', '--master-port']
    given += ['29500', '--rdzv-conf', 'timeout=8', 'x.py', '--nnodes', '7']

    def run(args):
        assert (args.nnodes, args.training_script_args) == ('4', ['--nnodes', '7'])
        raise torch.distributed.DistStoreError('9 seconds waiting for clients. 1/4 clients joined.')

    monkeypatch.setattr('torch.distributed.run.run', run)
    with pytest.raises(SystemExit) as left:
        launch(given)
    assert left.value.code == UNAVAILABLE
    assert capsys.readouterr().err.startswith('error: 1 of 4 machines came to 10.0.0.1:29500')
