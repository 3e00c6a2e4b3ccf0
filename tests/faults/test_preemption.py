"""Real trainings that are asked to leave: exit code, seconds, what is saved, and going on."""

import os
import signal
import time
from pathlib import Path

import pytest

from mmwave.engine.exit_codes import INTERRUPTED, PREEMPTED
from tests.faults.launch import Run, train
from tests.faults.tasks import write_task

LONG = 400  # epochs: no end within the test


def workers_of(pid: int) -> list[int]:
    """Return the children of a process."""
    text = ''.join(p.read_text() for p in Path(f'/proc/{pid}/task').glob('*/children'))
    return [int(child) for child in text.split()]


def leaves(run: Run) -> str:
    """Wait for a run that was asked to leave; return what it printed."""
    start = time.monotonic()
    done = run.wait(60)
    assert done.code == PREEMPTED, done.text[-3000:]
    assert time.monotonic() - start < 30
    assert done.text.count('--resume goes on from') == 1
    assert 'Traceback' not in done.text
    return done.text


def test_one_process_with_workers(tmp_path):
    """Workers that are signalled too, as by Slurm, do not take the training with them."""
    config = write_task(tmp_path, length=LONG, interval=LONG, workers=2)
    run = Run(config, tmp_path / 'work')
    run.wait_for('[1][12/12]')
    workers = workers_of(run.process.pid)
    assert len(workers) >= 2
    os.killpg(run.process.pid, signal.SIGTERM)
    leaves(run)
    assert len(list((tmp_path / 'work').glob('iter_*.pth'))) == 1
    end = time.monotonic() + 10
    while any(Path(f'/proc/{pid}').exists() for pid in workers) and time.monotonic() < end:
        time.sleep(0.1)
    assert not [pid for pid in workers if Path(f'/proc/{pid}').exists()]


@pytest.mark.fault
@pytest.mark.parametrize('kind', ['usr1', 'term', 'term-launcher', 'usr1-launcher'])
def test_two_ranks(tmp_path, kind):
    config = write_task(tmp_path)
    work = tmp_path / 'work'
    hook = 'default_hooks.preemption'  # that asks often: batch statistics differ inside an epoch
    options = ['--cfg-options', f'{hook}.type=mmwave.PreemptionHook', f'{hook}.every=0.01']
    run = Run(config, work, *options, ranks=2, fault=dict(kind=kind, iter=3, rank=1))
    run.wait_for('[1][3/6]', 240)  # the step that signals
    leaves(run)
    (left,) = work.glob('iter_*.pth')
    assert int(left.stem.removeprefix('iter_')) % 6
    done = train(config, work, '--resume', *options, ranks=2)
    assert done.code == 0, done.text[-3000:]
    assert (work / 'epoch_3.pth').exists()
    assert not list(work.glob('iter_*.pth'))


@pytest.mark.fault
def test_before_the_first_step(tmp_path):
    config = write_task(tmp_path)
    run = Run(config, tmp_path / 'work')
    run.wait_for('training ')
    run.signal(signal.SIGTERM)
    text = leaves(run)
    assert 'before the first step' in text or 'iter_' in text


@pytest.mark.fault
def test_a_process_that_cannot_save_leaves_within_the_grace(tmp_path):
    config = write_task(tmp_path)
    run = Run(config, tmp_path / 'work', fault=dict(kind='sleep', iter=3))
    run.wait_for('[1][ 3/12]')
    run.signal(signal.SIGUSR1)
    assert 'no step ended in time' in leaves(run)


@pytest.mark.fault
def test_a_second_signal(tmp_path):
    config = write_task(tmp_path)
    run = Run(config, tmp_path / 'work', fault=dict(kind='sleep', iter=3))
    run.wait_for('[1][ 3/12]')
    run.signal(signal.SIGTERM)
    time.sleep(4)
    run.signal(signal.SIGTERM)
    assert run.wait(5).code == 128 + signal.SIGTERM


@pytest.mark.fault
def test_ctrl_c(tmp_path):
    config = write_task(tmp_path, length=LONG, workers=2)
    run = Run(config, tmp_path / 'work')
    run.wait_for('[1][12/12]')
    os.killpg(run.process.pid, signal.SIGINT)
    done = run.wait(20)
    assert done.code == INTERRUPTED
    assert 'Traceback' not in done.text
    assert done.text.rstrip().endswith('interrupted')
