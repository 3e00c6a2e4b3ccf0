"""Memory of a long run: what a step leaves behind is left behind a million times."""

from statistics import median

import pytest

from tests.faults.launch import train
from tests.faults.tasks import TASKS, write_task

pytestmark = pytest.mark.fault
MOST = 5 * 2**20  # bytes
STEPS = 320


@pytest.mark.parametrize('task', TASKS)
def test_a_run_does_not_grow(tmp_path, task):
    config = write_task(tmp_path, task, by_epoch=False, length=STEPS, interval=80)
    log = tmp_path / 'steps.txt'
    done = train(config, tmp_path / 'work', env={'FAULT_LOG': str(log)})
    assert done.code == 0, done.text[-2000:]
    memory = [int(line.split()[2]) for line in log.read_text().splitlines()]
    assert len(memory) == STEPS
    # Validations and checkpoints at 80, 160 and 240 lie in between, the first ones before.
    growth = median(memory[-20:]) - median(memory[100:120])
    assert growth < MOST, f'{growth / 2**20:.1f} MB'
