"""Real trainings that want the same work folder, and ranks whose launcher is killed."""

import os
import signal
import time
from pathlib import Path

import pytest

from mmwave.engine.exit_codes import USER_ERROR
from tests.faults.launch import Run, train
from tests.faults.tasks import write_task

pytestmark = pytest.mark.fault
LONG = 400  # epochs: no end within the test


def ranks_of(pid: int) -> list[int]:
    text = ''.join(p.read_text() for p in Path(f'/proc/{pid}/task').glob('*/children'))
    return [int(child) for child in text.split()]


def lives(pid: int) -> bool:
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.parametrize('ranks', [1, 2])
def test_a_folder_in_use(tmp_path, ranks):
    config, work = write_task(tmp_path, length=LONG, workers=2), tmp_path / 'work'
    first = Run(config, work)
    try:
        first.wait_for('[1][12/12]')
        before = sorted(p.name for p in work.iterdir() if p.is_dir())
        second = train(config, work, ranks=ranks, seconds=60)
        assert second.code == USER_ERROR
        assert f'in use by the training of process {first.process.pid} on ' in second.text
        assert '--work-dir' in second.text
        assert 'Traceback' not in second.text
        assert sorted(p.name for p in work.iterdir() if p.is_dir()) == before
    finally:
        first.process.kill()  # its workers live on for seconds
        first.process.wait()
    done = train(config, work, '--resume', '--cfg-options', 'train_cfg.max_epochs=1')
    assert 'in use by' not in done.text
    first.kill()


def test_ranks_die_with_their_launcher(tmp_path):
    config = write_task(tmp_path, length=LONG, workers=2)
    run = Run(config, tmp_path / 'work', ranks=2)
    try:
        run.wait_for('[1][6/6]')
        ranks = ranks_of(run.process.pid)
        workers = [worker for rank in ranks for worker in ranks_of(rank)]
        assert len(ranks) >= 2
        run.process.kill()
        start = time.monotonic()
        while any(map(lives, ranks)) and time.monotonic() < start + 5:
            time.sleep(0.05)
        assert not [pid for pid in ranks if lives(pid)]
        while any(map(lives, workers)) and time.monotonic() < start + 12:
            time.sleep(0.05)
        assert not [pid for pid in workers if lives(pid)]
    finally:
        for pid in ranks_of(run.process.pid) if run.process.poll() is None else []:
            os.kill(pid, signal.SIGKILL)
        run.kill()
