"""The commands of projects/real_mini."""

import os
import re
import subprocess
import sys

import pytest

from tests.contracts import ROOT

SCRIPT = ROOT / 'projects/real_mini/run.sh'


def run(*steps, timeout=60, **environment):
    return subprocess.run(
        ['bash', str(SCRIPT), *steps],
        env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_bad_use_is_one_line():
    done = run('cats', MMWAVE_DATA='data')
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown step 'cats': expected flowers, retinanet")
    done = run('flowers', MMWAVE_DATA='')
    assert done.returncode != 0
    assert 'set MMWAVE_DATA to the folder that holds coco_mini' in done.stderr


@pytest.mark.slow
@pytest.mark.dist
@pytest.mark.real_data
@pytest.mark.timeout(2400)
@pytest.mark.skipif('MMWAVE_DATA' not in os.environ, reason='MMWAVE_DATA names no data')
@pytest.mark.parametrize('step', ['overfit', 'resume'])
def test_learns_by_heart_and_survives_a_kill(step, tmp_path):
    done = run(step, timeout=2300, WORK=str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    if step == 'overfit':
        scores = re.findall(r'coco/bbox_mAP_50: ([0-9.]+)', done.stdout + done.stderr)
        assert float(scores[-1]) > 0.8
    else:
        assert '== killing process' in done.stdout
        assert (tmp_path / 'resume/epoch_4.pth').is_file()
