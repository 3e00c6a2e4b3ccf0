"""A resumed run equals the uninterrupted one, to the bit."""

import time

import pytest

from tests.faults.tasks import write_task

from . import variants
from .runs import OFF, differences, run

pytestmark = pytest.mark.usefixtures('own_loader', 'no_waiting')


@pytest.fixture
def no_waiting(monkeypatch):
    """mmengine waits for seconds where a data loader begins anew."""
    monkeypatch.setattr(time, 'sleep', lambda seconds: None)


def both(*changes):
    def alter(cfg):
        for change in changes:
            change(cfg)

    return alter


# Task, by epoch, workers, length, last iteration, iteration to stop at, changes.
CASES = {
    'classification': ('classification', True, 0, 2, 24, 15, ()),
    'classification-inside': (
        *('classification', True, 0, 2, 24, 18),
        (variants.repeat_augment, variants.count_by_iteration, variants.accumulate),
    ),
    'detection-mosaic': ('detection', False, 0, 12, 12, 8, (variants.mix_images,)),
    'detection-finite': ('detection', False, 0, 15, 15, 14, (variants.sample_finitely,)),
    'segmentation-inside': (
        *('segmentation', True, 2, 2, 12, 11),
        (variants.count_by_iteration,),
    ),
}


def compare(folder, case, off=False):
    """Return what differs between a run and one that was stopped and resumed."""
    task, by_epoch, workers, length, last, stop, changes = CASES[case]
    interval = 1 if by_epoch else 6
    config = write_task(
        folder, task, by_epoch=by_epoch, workers=workers, length=length, interval=interval
    )
    if off:
        config.write_text(config.read_text() + OFF)
    alter = both(*changes)
    assert run(config, folder / 'whole', alter=alter).iter == last
    assert run(config, folder / 'parted', stop_at=stop, alter=alter) is None
    assert run(config, folder / 'parted', resume='auto', alter=alter).iter == last
    inside = variants.count_by_iteration in changes
    name = f'epoch_{length}.pth' if by_epoch and not inside else f'iter_{last}.pth'
    return differences(folder / 'whole' / name, folder / 'parted' / name)


@pytest.mark.parametrize('case', CASES)
def test_resumed_equals_uninterrupted(tmp_path, case):
    assert compare(tmp_path, case) == []


def test_without_the_hook_it_does_not(tmp_path):
    assert compare(tmp_path, 'classification', off=True)
