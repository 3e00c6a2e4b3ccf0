"""The launchers as a user calls them, bad calls included."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from tests.contracts import ROOT

TRAIN = 'tools/dist_train.sh'
CONFIG = 'configs/wavemlp/wavemlp-s_in1k.py'


def call(*command, timeout=120, **environment):
    return subprocess.run(
        [str(c) for c in command],
        cwd=ROOT,
        env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


@pytest.mark.parametrize(
    ('command', 'message'),
    [
        ([TRAIN], 'usage: tools/dist_train.sh CONFIG GPUS'),
        ([TRAIN, CONFIG], 'usage: tools/dist_train.sh CONFIG GPUS'),
        ([TRAIN, CONFIG, 'two'], "GPUS must be a number of processes, not 'two'"),
        ([TRAIN, CONFIG, '-1'], "GPUS must be a number of processes, not '-1'"),
        ([TRAIN, CONFIG, '0'], '0 processes asked for'),
        ([TRAIN, 'configs/wavemlp/nothing.py', '2'], 'no such config: configs/wavemlp/nothing.py'),
        ([TRAIN, 'README.md', '2'], 'README.md is no config'),
        (
            [TRAIN, CONFIG, '2', '--cfg-options', 'train_dataloader.dataset.data_root=nowhere'],
            "data_root 'nowhere' does not exist",
        ),
        (['tools/dist_test.sh', CONFIG, 'none.pth', '2'], 'no such checkpoint: none.pth'),
        (
            ['tools/dist_test.sh', CONFIG, 'x.pth'],
            'usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS',
        ),
        ([TRAIN, CONFIG, '2', '--resume', ''], "the path of the checkpoint is '': is the shell"),
        (['tools/dist_test.sh', CONFIG, '', '2'], "the path of the checkpoint is '': is the shell"),
        (
            [sys.executable, 'tools/to_deploy.py', CONFIG, '', 'out.pth'],
            'the path of the checkpoint is empty',
        ),
        (
            [sys.executable, 'tools/convert_checkpoint.py', '', 'out.pth'],
            'the path of the file to convert is empty',
        ),
        (
            [sys.executable, 'tools/convert_checkpoint.py', 'README.md', 'configs'],
            'configs must end in .pth or .safetensors',
        ),
        (['tools/slurm_train.sh', 'part', 'job', CONFIG], 'usage: tools/slurm_train.sh PARTITION'),
        (['tools/slurm_test.sh', 'part'], 'usage: tools/slurm_test.sh PARTITION'),
    ],
)
def test_bad_use_ends_in_one_clear_line(command, message):
    start = time.monotonic()
    done = call(*command)
    assert done.returncode == 2
    lines = [line for line in done.stderr.splitlines() if line.startswith('error:')]
    assert len(lines) == 1
    assert message in lines[0]
    assert 'Traceback' not in done.stderr
    assert time.monotonic() - start < 60


def test_more_processes_than_gpus_is_refused(monkeypatch):
    from mmengine.config import Config

    from mmwave.apis import preflight
    from mmwave.errors import UserError

    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    with pytest.raises(UserError, match=r'8.*2'):
        preflight(Config(dict()), splits=(), num_procs=8)


def fake_srun(folder: Path) -> str:
    """A PATH whose ``srun`` writes down how it was called."""
    script = folder / 'srun'
    script.write_text('#!/bin/sh\nfor word in "$@"; do echo "$word"; done\n')
    script.chmod(0o755)
    return f'{folder}{os.pathsep}{os.environ["PATH"]}'


def test_slurm_asks_for_what_the_user_asked(tmp_path):
    done = call(
        'tools/slurm_train.sh', 'gpu', 'wave', CONFIG, 'out', '--amp',
        PATH=fake_srun(tmp_path), GPUS='16', GPUS_PER_NODE='4', CPUS_PER_TASK='7',
        SRUN_ARGS='--quiet -x node3',
    )  # fmt: skip
    words = done.stdout.splitlines()
    assert words[words.index('-p') + 1] == 'gpu'
    for word in (
        '--ntasks=16',
        '--gres=gpu:4',
        '--ntasks-per-node=4',
        '--cpus-per-task=7',
        '--quiet',
        'node3',
    ):
        assert word in words
    assert words[-6:] == [
        str(ROOT / 'tools/train.py'),
        CONFIG,
        '--work-dir=out',
        '--amp',
        '--launcher',
        'slurm',
    ]
    done = call(
        'tools/slurm_test.sh', 'gpu', 'wave', CONFIG, 'a.pth', PATH=fake_srun(tmp_path), GPUS='2'
    )
    words = done.stdout.splitlines()
    assert '--gres=gpu:2' in words
    assert words[-5:] == [str(ROOT / 'tools/test.py'), CONFIG, 'a.pth', '--launcher', 'slurm']


def test_several_machines(tmp_path):
    """The environment of mmdetection's launchers reaches torchrun."""
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\ncase "$*" in *--check-only*) exit 0;; esac\necho "$@"\n')
    python.chmod(0o755)
    done = call(
        TRAIN,
        CONFIG,
        '8',
        '--amp',
        PYTHON=str(python),
        NNODES='4',
        NODE_RANK='3',
        MASTER_ADDR='10.0.0.1',
        PORT='1234',
    )
    train = ROOT / 'tools/train.py'
    assert done.stdout.strip() == (
        '-m torch.distributed.run --nnodes 4 --nproc-per-node 8 --node-rank 3 '
        f'--master-addr 10.0.0.1 --master-port 1234 {train} {CONFIG} --amp --launcher pytorch'
    )
    done = call(TRAIN, CONFIG, '8', PYTHON=str(python))
    assert '--nnodes 1 --nproc-per-node 8 --standalone' in done.stdout


COLOURS = """
_base_ = '{leaf}'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, depths=[1, 1, 1, 1], dims=[8, 16, 16, 32], norm='BN'),
        drop_path_rate=0.0,  # states of random generators are not in mmengine's checkpoints
    ),
    head=dict(in_channels=32, num_classes=2),
    train_cfg=None,
)
data_preprocessor = dict(num_classes=2)
pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]
dataset = dict(data_root='{data}', metainfo=dict(classes=['blue', 'red']), pipeline=pipeline)
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dataset)
val_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
test_dataloader = val_dataloader
val_evaluator = dict(topk=1)
test_evaluator = val_evaluator
optim_wrapper = dict(optimizer=dict(lr=0.01))
param_scheduler = None
custom_hooks = None
train_cfg = dict(max_epochs=4)
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
"""


@pytest.fixture
def colours(tmp_path):
    """A config that trains on two classes of images which differ in colour."""
    rng = np.random.default_rng(0)
    for split, count in (('train', 16), ('val', 8)):
        for label, name in enumerate(('blue', 'red')):
            folder = tmp_path / 'data' / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                image = rng.integers(0, 60, (40, 40, 3), dtype=np.uint8)
                image[..., 2 * label] += 150
                cv2.imwrite(str(folder / f'{name}{i}.png'), image)
    config = tmp_path / 'colours.py'
    config.write_text(
        COLOURS.format(leaf=ROOT / 'configs/wavemlp/wavemlp-t_in1k.py', data=tmp_path / 'data')
    )
    return config


@pytest.mark.dist
def test_two_processes_train_evaluate_resume_and_test(colours, tmp_path):
    """The path of every run: launcher, gloo, bfloat16, validation, resuming, testing."""
    work = tmp_path / 'work'
    done = call(TRAIN, colours, 2, '--work-dir', work, '--amp', timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    log = done.stdout + done.stderr
    assert 'no GPU here, running on the CPU: AMP -> bfloat16 autocast, DDP over 2 processes' in log
    assert (work / 'epoch_4.pth').is_file()

    longer = ('--cfg-options', 'train_cfg.max_epochs=5')
    done = call(TRAIN, colours, 2, '--work-dir', work, '--resume', *longer, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    log = done.stdout + done.stderr
    assert 'Epoch(train) [5][' in log.replace('  ', ' ')
    assert 'Epoch(train) [4][' not in log.replace('  ', ' ')
    assert re.search(r'loaded (\d+) of \1 tensors from the checkpoint', log)

    outputs = ('--show-dir', tmp_path / 'shown', '--out', tmp_path / 'out.pkl')
    command = ('tools/dist_test.sh', colours, work / 'epoch_5.pth', 2)
    done = call(*command, '--work-dir', tmp_path / 'test', *outputs, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    # Twenty steps: enough to run, not to settle the statistics of batch norms.
    assert re.search(r'Epoch\(test\) \[1/1\] +accuracy/top1: [\d.]+', done.stdout + done.stderr)
    assert len(list((tmp_path / 'shown').rglob('*.png'))) == 16
    assert (tmp_path / 'out.pkl').stat().st_size > 0


@pytest.mark.slow
def test_resumed_equals_uninterrupted(colours, tmp_path):
    """Bit for bit the same after four epochs, or after two and another two."""

    def run(work, *options):
        command = (sys.executable, 'tools/train.py', colours, '--work-dir', tmp_path / work)
        done = call(*command, *options, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]

    run('whole')
    run('parts', '--cfg-options', 'train_cfg.max_epochs=2')
    run('parts', '--resume')
    whole, parts = (read_checkpoint(tmp_path / work / 'epoch_4.pth') for work in ('whole', 'parts'))
    first = read_checkpoint(tmp_path / 'parts/epoch_2.pth')['state_dict']
    assert not torch.equal(first['head.fc.weight'], whole['state_dict']['head.fc.weight'])
    for name, tensor in whole['state_dict'].items():
        assert torch.equal(tensor, parts['state_dict'][name]), name
    moments = [c['optimizer']['state'] for c in (whole, parts)]
    for key, state in moments[0].items():
        assert torch.equal(state['exp_avg_sq'], moments[1][key]['exp_avg_sq'])


def test_errors_of_a_single_process(colours, tmp_path):
    evil = tmp_path / 'evil.pth'
    torch.save({'state_dict': {}, 'x': Path}, evil)
    weights = tmp_path / 'weights.pth'
    torch.save({'state_dict': {'a': torch.ones(1)}}, weights)
    for arguments, message in (
        (['tools/test.py', colours, tmp_path / 'no.pth'], 'no such checkpoint'),
        (['tools/train.py', colours, '--resume', tmp_path / 'no.pth'], 'no such checkpoint'),
        (['tools/test.py', colours, evil], '--trust-checkpoint'),
        (['tools/test.py', colours, evil, '--out', 'scores.csv'], 'written to a .pkl file'),
        (['tools/test.py', colours, weights], '; at least 100% must match'),
        (['tools/train.py', colours, '--resume', weights], 'holds weights only'),
    ):
        done = call(sys.executable, *arguments, '--work-dir', tmp_path / 'work')
        assert done.returncode == 2, done.stderr[-2000:]
        (line,) = [x for x in done.stderr.splitlines() if x.startswith('error:')]
        assert message in line
        assert 'Traceback' not in done.stderr
