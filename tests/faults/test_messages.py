"""What the real tools print when a process of two fails: the cause, where, and little else."""

from pathlib import Path

import pytest

from tests.faults.launch import train
from tests.faults.tasks import write_task

pytestmark = pytest.mark.fault


def failed(tmp_path, kind, *options):
    config = write_task(tmp_path)
    fault = dict(kind=kind, iter=2, rank=1) if kind else None
    outcome = train(config, tmp_path / 'work', *options, ranks=2, fault=fault)
    lines = outcome.text.splitlines()
    summary = [i for i, line in enumerate(lines) if line.startswith('error: the run failed on ')]
    return outcome.code, lines, lines[summary[0] + 1 :] if summary else []


def test_an_exception_of_one_process(tmp_path):
    code, lines, summary = failed(tmp_path, 'raise')
    assert code == 1
    assert 'rank 1: exit code 1: RuntimeError: injected; training, epoch 1 of 3' in summary[0]
    assert 'iteration 3 of 18; 2 images: ' in summary[0]
    assert summary[0].count('.png') == 2
    assert summary[1:] == ['  rank 0: stopped, or lost the others, after rank 1 failed']
    assert len([line for line in lines if 'Traceback' in line]) == 1
    # What the other processes withheld during a start that went well explains nothing.
    assert not [line for line in lines if 'from "optimizer" registry' in line]


def test_a_process_that_is_killed(tmp_path):
    code, _, summary = failed(tmp_path, 'kill')
    assert code == 137
    assert 'rank 1: killed by signal 9 (SIGKILL)' in summary[0]
    assert 'memory' in summary[0]


def test_memory_that_does_not_suffice(tmp_path):
    code, lines, summary = failed(tmp_path, 'oom')
    assert code == 1
    assert not [line for line in lines if 'Traceback' in line]
    (line,) = [line for line in lines if 'with_cp=True' in line]
    for part in ('a batch of 2 (2 of 3x32x32)', '2.00 GiB', 'batch_size (now 2)', '--amp', '.png'):
        assert part in line
    log = line.rpartition('traceback: ')[2]
    assert 'OutOfMemoryError' in Path(log).read_text()
    assert 'rank 1: exit code 1: ' in summary[0]


def test_a_setting_that_all_processes_refuse(tmp_path):
    code, lines, _ = failed(tmp_path, None, '--cfg-options', 'optim_wrapper.optimizer.betas=(2,3)')
    assert code == 2
    assert len([line for line in lines if line.startswith('error: ')]) == 1
    assert not [line for line in lines if 'Traceback' in line]
