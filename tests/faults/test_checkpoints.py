"""What is left of a run that is killed while it writes, or whose disk is full, with the real tools.

Nothing random is on in these runs: a resumed one ends with the weights of an undisturbed one.
"""

import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from mmwave.checkpoint import damage_of, read_checkpoint
from tests.contracts import ROOT
from tests.faults.launch import train
from tests.tiny_run import CLASSIFIER

pytestmark = pytest.mark.fault

_RUN = """
custom_imports = dict(imports=['tests.faults.injected'], allow_failed_imports=False)
custom_hooks = [dict(type='EMAHook', momentum=0.1), dict(type='FaultHook')]
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3), clip_grad=None
)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, T_max=4)]
train_cfg = dict(max_epochs=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(max_keep_ckpts=1))
randomness = dict(seed=0)
"""
_STEPS = 4  # of an epoch


@pytest.fixture(scope='module')
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('saved')
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for index in range(8):
            path = folder / 'data' / split / 'ab'[index % 2] / f'{index}.png'
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    leaf = ROOT / 'configs/wavemlp/wavemlp-t_in1k.py'
    text = CLASSIFIER.format(leaf=leaf, data=folder / 'data', batch=2)
    text += "train_dataloader['sampler'] = dict(type='DefaultSampler', shuffle=False)\n"
    (folder / 'tiny.py').write_text(text + _RUN)
    return folder / 'tiny.py'


@pytest.fixture(scope='module')
def undisturbed(config: Path) -> dict[str, Any]:
    """The checkpoint of a run that nothing happens to."""
    assert train(config, config.parent / 'undisturbed').code == 0
    return read_checkpoint(config.parent / 'undisturbed' / 'epoch_4.pth')


def same_weights(work: Path, expected: dict[str, Any]) -> None:
    found = read_checkpoint(work / 'epoch_4.pth')
    for part in ('state_dict', 'ema_state_dict', 'optimizer'):
        torch.testing.assert_close(found[part], expected[part], rtol=0, atol=0)


def parts(work: Path) -> list[Path]:
    return [path for path in work.iterdir() if path.name.endswith('.part')]


@pytest.mark.parametrize(
    ('name', 'nth', 'left'),
    [
        ('epoch_2.pth', 1, 'epoch_1.pth'),
        # Written once more after the first best one.
        ('epoch_1.pth', 2, 'epoch_1.pth'),
        ('best_*', 1, 'epoch_1.pth'),
        ('last_checkpoint', 1, 'epoch_1.pth'),
    ],
)
def test_a_run_killed_while_it_writes_goes_on(config, undisturbed, tmp_path, name, nth, left):
    """Of checkpoints only one is kept."""
    work = tmp_path / 'work'
    fault = dict(kind='midwrite', iter=0, name=name, nth=nth)
    killed = train(config, work, fault=fault)
    assert killed.code == -9
    assert len(parts(work)) == 1
    assert [p.name for p in work.glob('epoch_*.pth')] == [left]
    assert not damage_of(work / left)
    resumed = train(config, work, '--resume')
    assert resumed.code == 0, resumed.text
    assert not parts(work)
    assert [p.name for p in work.glob('epoch_*.pth')] == ['epoch_4.pth']
    same_weights(work, undisturbed)


@pytest.mark.parametrize('ranks', [1, 2])
def test_a_full_disk_ends_a_run_after_three_checkpoints(config, tmp_path, ranks):
    """In one line, with the exit code of errors; no process is left."""
    work = tmp_path / 'work'
    fault = dict(kind='full', iter=_STEPS // ranks + 1, name='epoch_*')
    outcome = train(config, work, ranks=ranks, fault=fault)
    assert outcome.code == 2, outcome.text
    (line, *_) = [x for x in outcome.text.splitlines() if x.startswith('error: ')]
    assert re.search(r'epoch_4\.pth cannot be written: No space left .* bytes are needed', line)
    assert 'third checkpoint in a row' in line
    assert f'{work / "epoch_1.pth"} is the last one' in line
    assert 'Traceback' not in outcome.text
    assert [p.name for p in work.glob('epoch_*.pth')] == ['epoch_1.pth']
    assert not parts(work)
    resumed = train(config, work, '--resume', ranks=ranks)
    assert resumed.code == 0, resumed.text
    assert read_checkpoint(work / 'epoch_4.pth')['meta']['epoch'] == 4


@pytest.mark.parametrize('ranks', [1, 2])
def test_weights_that_are_not_finite_are_never_written(config, tmp_path, ranks):
    work = tmp_path / 'work'
    fault = dict(kind='nan-weights', iter=_STEPS // ranks + 1)
    outcome = train(config, work, ranks=ranks, fault=fault)
    assert outcome.code == 2, outcome.text
    assert re.search(r'^error: .*(loss is nan|NaN or infinite)', outcome.text, re.MULTILINE)
    assert [p.name for p in work.glob('epoch_*.pth')] == ['epoch_1.pth']
    state = read_checkpoint(work / 'epoch_1.pth')['state_dict']
    assert all(tensor.isfinite().all() for tensor in state.values())
