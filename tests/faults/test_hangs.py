"""Runs that would wait for ever: for a process, a batch, shared memory, another machine."""

import re
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from mmwave.engine.exit_codes import UNAVAILABLE, USER_ERROR
from tests.faults.launch import Outcome, Run, train
from tests.faults.tasks import write_task

pytestmark = pytest.mark.fault

TIMEOUT = 10
SHORT = ('--cfg-options', f'env_cfg.dist_cfg.timeout={TIMEOUT}')
HANGING = "\ntrain_dataset['pipeline'].insert(1, dict(type='HangingTransform', after=5))\n"


def after_fault(folder: Path, kind: str, *options: str) -> tuple[Outcome, float]:
    """Have process 1 of 2 meet a fault; return what became of the run, and seconds from there."""
    log = folder / 'steps'
    run = Run(
        write_task(folder),
        folder / 'work',
        *options,
        ranks=2,
        fault={'kind': kind, 'iter': 4, 'rank': 1},
        env={'FAULT_LOG': str(log)},
    )
    end = time.monotonic() + 150
    while not (log.exists() and '\n1 4 ' in log.read_text()):
        assert time.monotonic() < end, run.text
        time.sleep(0.05)
    start = time.monotonic()
    outcome = run.wait(TIMEOUT + 100)
    return outcome, time.monotonic() - start


def errors(outcome: Outcome) -> list[str]:
    return [line for line in outcome.text.splitlines() if line.startswith('error: ')]


def test_a_stopped_process_ends_the_run(tmp_path):
    outcome, seconds = after_fault(tmp_path, 'stop', *SHORT)
    assert outcome.code == UNAVAILABLE
    assert seconds < TIMEOUT + 60
    (line,) = errors(outcome)
    assert f'process 1 ({socket.gethostname()}, pid ' in line
    assert re.search(r'has given no sign of life for \d+ s \(env_cfg.dist_cfg.timeout=10\)', line)
    (log,) = (tmp_path / 'work').glob('*/*.log')
    assert line.removeprefix('error: ') in log.read_text()


@pytest.mark.parametrize('kind', ['kill', 'exit', 'raise'])
def test_a_dead_process_is_noticed(tmp_path, kind):
    outcome, seconds = after_fault(tmp_path, kind)
    assert outcome.code != 0
    assert seconds < 15


def test_others_wait_while_the_first_process_evaluates(tmp_path):
    """For longer than the timeout: it gives signs of life."""
    config = write_task(tmp_path, length=1)
    with config.open('a') as file:
        file.write("\nval_evaluator = dict(_delete_=True, type='SlowMetric')\n")
    outcome = train(
        config,
        tmp_path / 'work',
        '--cfg-options',
        'env_cfg.dist_cfg.timeout=6',
        'default_hooks.checkpoint.save_best=None',
        ranks=2,
        env={'SLOW_METRIC': '20'},
    )
    assert outcome.code == 0, outcome.text
    assert 'nothing was finished for 6 s' in outcome.text
    assert 'its main thread is in compute_metrics' in outcome.text


@pytest.mark.parametrize('workers', [0, 2])
def test_a_hanging_loader_ends_the_run(tmp_path, workers):
    config = write_task(tmp_path, workers=workers)
    with config.open('a') as file:
        file.write(HANGING)
    outcome = train(config, tmp_path / 'work', *SHORT)
    assert outcome.code == UNAVAILABLE
    assert outcome.seconds < TIMEOUT + 60
    (line,) = errors(outcome)
    assert f'{tmp_path}/data/train/' in line
    assert 'Traceback' not in outcome.text
    assert ('train_dataloader: no batch came within 10 s' in line) == (workers > 0)
    assert line.count('(pid ') == workers


def in_small_memory(size: str) -> list[str]:
    """Return the words in front of a command that give it a /dev/shm of its own."""
    words = ['unshare', '-m', 'sh', '-c']
    words.append(f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"')
    words.append('sh')
    if shutil.which('unshare') is None:
        pytest.skip('unshare is not installed')
    done = subprocess.run([*words, 'true'], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f'no mount namespace of its own: {done.stderr.strip()}')
    return words


@pytest.mark.parametrize(('task', 'size'), [('classification', '3m'), ('detection', '8m')])
def test_full_shared_memory_ends_the_run(tmp_path, task, size):
    config = write_task(tmp_path, task, workers=2)
    with config.open('a') as file:
        file.write(
            "\nfor step in train_dataset['pipeline']:\n"
            "    if 'Resize' in step['type']:\n"
            "        step['scale'] = 512 if step['type'] == 'RandomResizedCrop' else (512, 512)\n"
        )
    outcome = train(config, tmp_path / 'work', prefix=in_small_memory(size), seconds=100)
    assert outcome.code == USER_ERROR, outcome.text
    assert '; the data loaders of 1 process may take ' in outcome.text
    (line,) = errors(outcome)
    assert '--shm-size' in line
    assert 'num_workers' in line


def test_memory_for_not_one_batch_is_refused_before_the_first_step(tmp_path):
    config = write_task(tmp_path, workers=2)
    outcome = train(config, tmp_path / 'work', prefix=in_small_memory('4k'), seconds=100)
    assert outcome.code == USER_ERROR
    (line,) = errors(outcome)
    assert 'has 4.1 kB free of 4.1 kB, and one batch takes ' in line
    assert 'lr:' not in outcome.text


@pytest.mark.parametrize('node', ['0', '1'])
def test_a_machine_that_never_comes(tmp_path, node):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = str(free.getsockname()[1])
    outcome = train(
        write_task(tmp_path),
        tmp_path / 'work',
        ranks=2,
        env={'NNODES': '2', 'NODE_RANK': node, 'PORT': port, 'NODE_TIMEOUT': '5'},
    )
    assert outcome.code == UNAVAILABLE
    (line,) = errors(outcome)
    assert f'127.0.0.1:{port} within 5 s' in line
    assert ('1 of 2 machines came to' in line) == (node == '0')
    assert 'Traceback' not in outcome.text
