"""The end of a process from another thread."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

from mmwave.engine.exit_codes import UNAVAILABLE
from tests.contracts import ROOT

CODE = """
import logging, multiprocessing, sys, threading, time
from mmwave.engine.watching.ending import end_process

logger = logging.getLogger('run')
logger.addHandler(logging.FileHandler(sys.argv[1]))
child = multiprocessing.get_context('fork').Process(target=time.sleep, args=(600,))
child.start()
print(child.pid, flush=True)
if sys.argv[2] == 'locked':
    logger.handlers[0].acquire()
threading.Thread(target=end_process, args=('it\\nwas late', logger)).start()
time.sleep(600)
"""


def end(folder, how):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'TORCHELASTIC_ERROR_FILE': str(folder / 'error')}
    return subprocess.run(
        [sys.executable, '-c', CODE, str(folder / 'log'), how],
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
    )


def test_it_leaves_its_line_and_no_workers(tmp_path):
    done = end(tmp_path, 'free')
    assert done.returncode == UNAVAILABLE
    assert done.stderr == 'error: it\\nwas late\n'
    assert 'it\nwas late' in (tmp_path / 'log').read_text()
    summary = json.loads((tmp_path / 'error').read_text())['message']['message']
    assert summary == 'UnavailableError: it\nwas late'
    end_of_wait = time.monotonic() + 10  # the kernel takes a moment
    while not _is_gone(done.stdout.strip()):
        assert time.monotonic() < end_of_wait
        time.sleep(0.05)
    assert multiprocessing.active_children() == []


def test_a_lock_that_nobody_releases_does_not_hold_it_up(tmp_path):
    assert end(tmp_path, 'locked').returncode == UNAVAILABLE


def _is_gone(pid):
    try:
        stat = Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return True
    return stat.rpartition(')')[2].split()[0] == 'Z'
