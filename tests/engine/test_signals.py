"""Requests to leave are noted, at any moment and in any state, and nothing else is changed."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from mmwave.engine.exit_codes import PREEMPTED
from mmwave.engine.parent import die_with_launcher
from mmwave.engine.signals import SIGNALS, Preempted, current, noted
from mmwave.errors import UserError
from tests.contracts import ROOT


def handlers():
    return [signal.getsignal(number) for number in SIGNALS]


def test_notes_and_restores():
    before = handlers()
    with noted(alone=False) as notice:
        assert current() is notice
        assert not notice.received
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)  # passed on by a launcher too
        assert notice.received == signal.SIGUSR1
        with noted(alone=False) as inner:
            assert inner is notice
    assert current() is None
    assert handlers() == before


def test_a_single_process_leaves_at_once_before_its_first_step():
    def ask():
        with noted(alone=True):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    start = time.monotonic()
    with pytest.raises(Preempted, match=r'SIGTERM .*before the first step') as left:
        ask()
    assert left.value.code == PREEMPTED
    assert time.monotonic() - start < 5


def test_errors_of_a_run_that_was_asked():
    """What waits for processes that have left fails."""

    def fail(error, asked):
        with noted(alone=False) as notice:
            if asked:
                notice.received = signal.SIGTERM
            raise error

    with pytest.raises(Preempted, match='RuntimeError: closed by peer'):
        fail(RuntimeError('closed by peer'), asked=True)
    for error, asked in ((RuntimeError('x'), False), (UserError('x'), True)):
        with pytest.raises(type(error), match='x'):
            fail(error, asked)


def test_another_thread_changes_nothing():
    seen = []

    def run():
        with noted(alone=True) as notice:
            seen.append((notice, handlers()))

    before = handlers()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(None, before)]


def test_forked_processes_die_as_ever():
    """A pool's workers are ended by SIGTERM, and the parent is not told that it was asked."""
    with noted(alone=False) as notice:
        child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(60,))
        child.start()
        time.sleep(0.3)
        os.kill(child.pid, signal.SIGUSR1)
        child.terminate()
        child.join(10)
        assert child.exitcode == -signal.SIGTERM
        time.sleep(0.1)
        assert not notice.received


DEAF = """
import sys
from mmwave.engine.signals import noted
with noted(alone=False) as notice:
    notice.grace = 1.0
    print('here', flush=True)
    import ctypes
    ctypes.CDLL(None).sleep(60) or [ctypes.CDLL(None).sleep(60) for _ in range(9)]
"""


def test_a_process_that_waits_outside_of_python_leaves_within_the_grace():
    # A C call that is taken up again after a signal, as a collective is.
    code = DEAF.replace('ctypes.CDLL(None).sleep(60) or ', '')
    process = subprocess.Popen(
        [sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    start = time.monotonic()
    process.terminate()
    assert process.wait(20) == PREEMPTED
    assert time.monotonic() - start < 10
    assert b'without saving' in process.stderr.read()


def test_only_ranks_of_torchrun_die_with_their_parent(monkeypatch):
    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    die_with_launcher()


def test_a_rank_dies_with_its_launcher():
    rank = (
        'from mmwave.engine.parent import die_with_launcher as d; d(); '
        'import os, time; print(os.getpid(), flush=True); time.sleep(60)'
    )
    launcher = f'import subprocess, sys; subprocess.run([sys.executable, "-c", {rank!r}])'
    process = subprocess.Popen(
        [sys.executable, '-c', launcher], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env={**os.environ, 'TORCHELASTIC_RUN_ID': 'x'},
    )  # fmt: skip
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    assert process.stdout.read() == ''  # which ends with the last that could write
    end = time.monotonic() + 5
    while os.path.exists(f'/proc/{pid}') and time.monotonic() < end:
        time.sleep(0.05)
    assert not os.path.exists(f'/proc/{pid}')
