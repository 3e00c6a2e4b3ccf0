"""Slurm trainings go on after they were asked to leave; ``srun`` and ``scontrol`` are of here."""

import os
import subprocess

import pytest

from mmwave.engine.exit_codes import PREEMPTED
from tests.contracts import ROOT

# It writes down its words and ends with the next of the codes in a file.
SRUN = """#!/bin/bash
echo "srun $*" >> calls
code=$(head -n 1 codes); sed -i 1d codes
[ -z "$WRITES" ] || touch work/iter_3.pth
exit "$code"
"""


@pytest.fixture
def start(tmp_path):
    def start(codes, *options, **env):
        for name, text in (('srun', SRUN), ('scontrol', '#!/bin/sh\necho "scontrol $*" >> calls')):
            (tmp_path / name).write_text(text)
            (tmp_path / name).chmod(0o755)
        (tmp_path / 'work').mkdir(exist_ok=True)
        (tmp_path / 'codes').write_text(''.join(f'{code}\n' for code in codes))
        clean = {k: v for k, v in os.environ.items() if not k.startswith(('SLURM', 'SRUN'))}
        done = subprocess.run(
            [ROOT / 'tools/slurm_train.sh', 'gpu', 'wave', 'config.py', 'work', *options],
            cwd=tmp_path,
            env={
                **clean,
                'PATH': f'{tmp_path}{os.pathsep}{os.environ["PATH"]}',
                'RESTART_AFTER': '0',
                **env,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, (tmp_path / 'calls').read_text().splitlines()

    return start


def test_asks_for_the_signal_which_srun_args_may_change(start):
    code, (call,) = start([0], SRUN_ARGS='--signal=USR1@600')
    assert code == 0
    words = call.split()
    # The last of an option counts.
    assert words.index('--signal=USR1@120') < words.index('--signal=USR1@600')
    assert words.index('--kill-on-bad-exit=0') > words.index('--kill-on-bad-exit=1')
    assert '--resume' not in words


def test_starts_again_until_it_ends(start):
    code, calls = start([PREEMPTED, PREEMPTED, 1], '--load-from', 'a.pth', '--amp', WRITES='1')
    assert code == 1
    assert len(calls) == 3
    assert '--load-from a.pth --amp --launcher slurm' in calls[0]
    for call in calls[1:]:
        assert '--amp --resume --launcher slurm' in call
        assert '--load-from' not in call


def test_starts_anew_where_nothing_was_saved(start):
    _, calls = start([PREEMPTED, 0], '--load-from=a.pth')
    assert '--load-from=a.pth --launcher slurm' in calls[1]
    assert '--resume' not in calls[1]


@pytest.mark.parametrize(('code', 'requeued'), [(PREEMPTED, True), (1, False), (0, False)])
def test_a_batch_job_is_requeued(start, code, requeued):
    returned, calls = start([code], SLURM_JOB_ID='42', WRITES='1')
    assert returned == code
    assert calls[1:] == (['scontrol requeue 42'] if requeued else [])


def test_a_requeued_job_resumes(start):
    start([PREEMPTED], SLURM_JOB_ID='42', WRITES='1')
    _, calls = start([0], SLURM_JOB_ID='42', SLURM_RESTART_COUNT='1')
    assert '--resume' in calls[-1].split()
