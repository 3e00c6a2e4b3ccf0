"""Killed, resumed, and the weights of an undisturbed run: every task, in processes."""

import pytest

from tests.engine.exact_resume.runs import OFF, differences

from .launch import train
from .tasks import TASKS, write_task

pytestmark = pytest.mark.fault

INSIDE = """
default_hooks['checkpoint'] = dict(by_epoch=False, interval=5, max_keep_ckpts=2, save_last=True)
"""
# Iterations of an epoch, with one process and a batch of two.
LENGTH = {'classification': 12, 'detection': 6, 'segmentation': 6}


def results(folder, task, *, by_epoch, workers, inside=False, ranks=1, off=False, whole=True):
    """Return the last checkpoints of a run that was killed and resumed, and of another one."""
    length, interval = (2, 1) if by_epoch else (12, 6)
    config = write_task(
        folder, task, by_epoch=by_epoch, workers=workers, length=length, interval=interval
    )
    text = config.read_text() + (INSIDE if inside else '') + (OFF if off else '')
    config.write_text(text)
    epoch = LENGTH[task] // ranks
    last = 2 * epoch if by_epoch else 12
    name = f'epoch_{length}.pth' if by_epoch and not inside else f'iter_{last}.pth'
    if whole:
        done = train(config, folder / 'whole', ranks=ranks)
        assert done.code == 0, done.text
    fault = {'kind': 'kill', 'iter': last - 1, 'rank': ranks - 1}
    killed = train(config, folder / 'killed', ranks=ranks, fault=fault)
    assert killed.code, killed.text
    assert not (folder / 'killed' / name).exists()
    done = train(config, folder / 'killed', '--resume', ranks=ranks)
    assert done.code == 0, done.text
    return folder / 'whole' / name, folder / 'killed' / name


@pytest.mark.parametrize('workers', [0, 2])
@pytest.mark.parametrize('mode', ['epoch', 'inside', 'iteration'])
@pytest.mark.parametrize('task', TASKS)
def test_killed_and_resumed(tmp_path, task, mode, workers):
    by_epoch = mode != 'iteration'
    pair = results(tmp_path, task, by_epoch=by_epoch, workers=workers, inside=mode == 'inside')
    assert differences(*pair) == []


@pytest.mark.parametrize('mode', ['inside', 'iteration'])
@pytest.mark.parametrize('task', TASKS)
def test_two_ranks(tmp_path, task, mode):
    by_epoch, inside = mode == 'inside', mode == 'inside'
    pair = results(tmp_path, task, by_epoch=by_epoch, workers=2, inside=inside, ranks=2)
    assert differences(*pair) == []


def test_without_the_hook_the_weights_are_others(tmp_path):
    pair = results(tmp_path, 'classification', by_epoch=True, workers=0, off=True)
    assert any('.state_dict' in name for name in differences(*pair))
