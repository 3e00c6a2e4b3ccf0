"""Small files that declare much are refused before memory or time is spent on them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .bombs import BOMBS


@pytest.mark.skipif(sys.platform != 'linux', reason='measures by files of /proc')
def test_bombs(tmp_path):
    """All in one process: importing torch takes longer than reading them."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name('bombs.py')), str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    outcomes = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
    assert outcomes.keys() == BOMBS.keys()
    wrong = {}
    for name, (error, message, size, memory, seconds) in outcomes.items():
        wanted = BOMBS[name][1]
        as_wanted = bool(error) == bool(wanted) and re.search(wanted, message)
        known = error in ('', 'UserError', 'UntrustedCheckpointError')
        small = memory <= 3 * size + (200 << 20) and seconds < 20
        if not (as_wanted and known and small):
            wrong[name] = outcomes[name]
    assert not wrong
