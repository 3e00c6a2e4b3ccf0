"""Damaged files of every format end in one error, or in data as plain as that of whole ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .fuzz import FORMATS, MUTATIONS


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != 'linux', reason='measures by files of /proc')
@pytest.mark.parametrize('form', FORMATS)
def test_mutations(tmp_path, form):
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name('fuzz.py')), str(tmp_path), form],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result['faults'] == []
    assert sum(result['counts'].values()) >= MUTATIONS
    assert result['counts']['refused'] > MUTATIONS // 4
    assert result['memory'] <= 3 * result['size'] + (200 << 20)
