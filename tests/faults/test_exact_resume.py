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


def results(folder, task, mode, *, workers, ranks=1, off=False):
    """Return the last checkpoints of an undisturbed run and of one that was killed and resumed.

    Args:
        folder: for both.
        task: of :data:`tests.faults.tasks.TASKS`.
        mode: 'epoch' and 'inside' save by the epoch and inside one, 'iteration' counts no epochs.
        workers: of the undisturbed run and of the other one.
        ranks: of both; the last one is killed in the last but one iteration.
        off: whether the runs have no :class:`mmwave.engine.ExactResumeHook`.
    """
    by_epoch, inside = mode != 'iteration', mode == 'inside'
    length, interval = (2, 1) if by_epoch else (12, 6)
    last = 2 * LENGTH[task] // ranks if by_epoch else 12
    name = f'epoch_{length}.pth' if by_epoch and not inside else f'iter_{last}.pth'
    configs = []
    for role, number in zip(('whole', 'killed'), workers, strict=True):
        config = write_task(
            folder / role, task, by_epoch=by_epoch, workers=number, length=length, interval=interval
        )
        config.write_text(config.read_text() + (INSIDE if inside else '') + (OFF if off else ''))
        configs.append(config)
    done = train(configs[0], folder / 'a', ranks=ranks)
    assert done.code == 0, done.text
    fault = {'kind': 'kill', 'iter': last - 1, 'rank': ranks - 1}
    killed = train(configs[1], folder / 'b', ranks=ranks, fault=fault)
    assert killed.code, killed.text
    assert not (folder / 'b' / name).exists()
    done = train(configs[1], folder / 'b', '--resume', ranks=ranks)
    assert done.code == 0, done.text
    return folder / 'a' / name, folder / 'b' / name


@pytest.mark.parametrize('mode', ['epoch', 'inside', 'iteration'])
@pytest.mark.parametrize('task', TASKS)
def test_killed_and_resumed_with_workers_like_undisturbed_without(tmp_path, task, mode):
    assert differences(*results(tmp_path, task, mode, workers=(0, 2))) == []


@pytest.mark.parametrize(
    ('task', 'mode'),
    [('classification', 'inside'), ('detection', 'iteration'), ('segmentation', 'inside')],
)
def test_two_ranks(tmp_path, task, mode):
    assert differences(*results(tmp_path, task, mode, workers=(2, 0), ranks=2)) == []


def test_without_the_hook_the_weights_are_others(tmp_path):
    pair = results(tmp_path, 'classification', 'epoch', workers=(0, 0), off=True)
    assert any('.state_dict' in name for name in differences(*pair))
