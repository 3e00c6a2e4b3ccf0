"""The demo from its command to its picture, and the other two configs on a small set."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.contracts import ROOT

SHAPES = ROOT / 'projects' / 'shapes'
sys.path.insert(0, str(SHAPES))

import draw  # noqa: E402
import generate  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.dist]


def run(command, *, timeout, **environment):
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | {'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'} | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


@pytest.mark.timeout(1800)
def test_the_demo_learns_and_draws(tmp_path):
    output = run(['bash', SHAPES / 'demo.sh'], timeout=1740, WORK_DIR=str(tmp_path))
    ap, ap50 = map(float, re.search(r'box AP ([\d.]+), AP50 ([\d.]+)', output).groups())
    assert ap50 >= 0.7
    assert 0 < ap < ap50
    picture = Path(re.search(r'picture: (.+)', output).group(1))
    assert picture.parent == tmp_path
    with Image.open(picture) as image:
        image.load()
        assert image.size == draw.sheet_size(8)
        # Scenes and coloured boxes, not one flat colour.
        assert len(image.getcolors(image.width * image.height)) > 1000
    assert len(list(tmp_path.glob('epoch_*.pth'))) == 1

    test, deploy, train = (
        line.split() for line in output.partition('\nNext: ')[2].splitlines()[1:] if line.strip()
    )
    again = run(test, timeout=600)
    assert float(re.search(r'bbox_mAP_50: ([\d.]+)', again).group(1)) == pytest.approx(
        ap50, abs=0.02
    )
    assert len(list((tmp_path / 'drawn').rglob('*.jpg'))) == 100
    run(deploy, timeout=600)
    assert (tmp_path / 'deploy.pth').is_file()
    assert (ROOT / train[0]).is_file()
    assert (ROOT / train[1]).is_file()


def test_the_demo_fails_when_the_training_does(tmp_path):
    # An interpreter that draws the data set but cannot train.
    broken = tmp_path / 'python'
    broken.write_text(
        f'#!/bin/sh\ncase "$1" in *generate.py) exec {sys.executable} "$@";; esac\nexit 3\n'
    )
    broken.chmod(0o755)
    done = subprocess.run(
        ['bash', str(SHAPES / 'demo.sh')],
        cwd=ROOT,
        env=os.environ | {'PYTHON': str(broken), 'WORK_DIR': str(tmp_path / 'work')},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode != 0
    assert 'picture' not in done.stdout


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    out = tmp_path_factory.mktemp('data') / 'shapes'
    generate.generate(out, train=24, val=8, size=64)
    return out


def options(root, loaders=('train', 'val', 'test')):
    return [f'{loader}_dataloader.dataset.data_root={root}' for loader in loaders]


@pytest.mark.parametrize(
    ('config', 'folder', 'changes', 'metric'),
    [
        (
            'wavemlp-t-dw_sem-fpn_shapes.py',
            'ade',
            ['train_cfg.max_iters=3', 'train_cfg.val_interval=3'],
            'mIoU',
        ),
        (
            'wavemlp-t-dw_shapes.py',
            'imagenet',
            ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1'],
            'accuracy/top1',
        ),
    ],
)
def test_the_other_tasks_train_and_evaluate(small, tmp_path, config, folder, changes, metric):
    script = ROOT / 'tools' / 'dist_train.sh'
    command = ['bash', script, SHAPES / 'configs' / config, 2, '--amp', '--work-dir', tmp_path]
    command += ['--cfg-options', *options(small / folder), *changes]
    output = run(command, timeout=560)
    found = re.findall(rf'{metric}: +([\d.]+)', output)
    assert found
    assert 0 <= float(found[-1]) <= 100
