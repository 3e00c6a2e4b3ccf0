"""A loss that is not finite, in a run of several processes and by a hopeless learning rate."""

import re

import pytest

from .launch import train
from .tasks import write_task

pytestmark = pytest.mark.fault


@pytest.mark.parametrize('task', ['classification', 'segmentation'])
def test_nan_on_one_rank_of_two_ends_both(tmp_path, task):
    """The message names term, rank and images, and nothing that is not finite is written."""
    work = tmp_path / 'work'
    config = write_task(tmp_path, task)
    fault = dict(kind='nan-weights', iter=1, rank=1)
    done = train(config, work, ranks=2, fault=fault)
    assert done.code != 0
    assert re.search(r'error: in iteration 2 on rank 1 \S*loss\S* is nan', done.text)
    assert '.png' in done.text
    assert 'max_skipped=N' in done.text
    assert not list(work.glob('*.pth'))


def test_a_hopeless_learning_rate_is_told_with_its_value(tmp_path):
    work = tmp_path / 'work'
    options = ['optim_wrapper.optimizer.lr=1e30', 'optim_wrapper.clip_grad=None']
    done = train(write_task(tmp_path), work, '--cfg-options', *options)
    assert done.code == 2
    assert 'learning rate 1e+' in done.text
    assert 'Traceback' not in done.text
