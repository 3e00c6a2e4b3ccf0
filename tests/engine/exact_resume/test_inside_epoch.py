"""How far an epoch had come."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.optim import OptimWrapper, OptimWrapperDict
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop

from mmwave.engine.exact_resume.inside_epoch import (
    EpochStarts,
    at_boundary,
    batches_of_stock,
    begin_inside,
    check_batches,
    end_inside,
    resumes_inside_epoch,
)
from mmwave.errors import UserError


def wrapper_of(accumulated):
    return OptimWrapper(
        torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1),
        accumulative_counts=accumulated,
    )


@pytest.mark.parametrize('several', [False, True])
def test_a_boundary_is_where_gradients_are_used(several):
    wrapper = wrapper_of(3)
    both = OptimWrapperDict(a=wrapper_of(1), b=wrapper) if several else wrapper
    runner = SimpleNamespace(optim_wrapper=both)
    found = []
    for _ in range(6):
        wrapper.update_params(wrapper.optimizer.param_groups[0]['params'][0].sum())
        found.append(at_boundary(runner))
    assert found == [False, False, True] * 2


def test_epochs_and_the_checkpoints_of_each():
    starts = EpochStarts()
    starts.begin(1, 20)
    assert starts.batches_done({'epoch': 1, 'iter': 23}) == 3
    starts.begin(2, 30)  # behind the epoch, before the next one
    assert starts.batches_done({'epoch': 1, 'iter': 30}) == 10
    assert starts.batches_done({'epoch': 2, 'iter': 30}) == 0
    starts.begin(2, 30)
    assert starts.batches_done({'epoch': 2, 'iter': 31}) == 1


@pytest.mark.parametrize(
    ('epoch', 'iteration', 'info', 'done'),
    [
        (1, 13, dict(max_iters=30, max_epochs=3), 3),
        (1, 20, dict(max_iters=30, max_epochs=3), 10),
        (2, 20, dict(max_iters=30, max_epochs=3), 0),
        (1, 13, dict(max_iters=60, max_epochs=3), 0),  # epochs of another length
        (0, 13, dict(max_iters=30, max_epochs=1), 0),  # a run of iterations
        (1, 13, {}, 0),
    ],
)
def test_files_of_mmengine(epoch, iteration, info, done):
    content = {
        'meta': {'epoch': epoch, 'iter': iteration},
        'message_hub': {'runtime_info': info},
    }
    assert batches_of_stock(content, length=10) == done


def test_batches_are_counted_on_for_one_epoch():
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    counted = []
    vars(loop)['run_iter'] = lambda idx, data_batch: counted.append(idx)
    begin_inside(loop, 4)
    loop.run_iter(0, None)
    end_inside(loop)
    loop.run_iter(0, None)
    assert counted == [4, 0]


class Own(EpochBasedTrainLoop):
    def run_epoch(self):
        raise NotImplementedError


class Steps(EpochBasedTrainLoop):
    def run_iter(self, idx, data_batch):
        raise NotImplementedError


@pytest.mark.parametrize(
    ('kind', 'inside'),
    [(EpochBasedTrainLoop, True), (IterBasedTrainLoop, True), (Steps, True), (Own, False)],
)
def test_loops(kind, inside):
    assert resumes_inside_epoch(SimpleNamespace(train_loop=kind.__new__(kind))) is inside


@pytest.mark.parametrize('given', [('x', 3), (4, 3), (-1, 3), (True, 3), (1, None)])
def test_what_a_checkpoint_may_say(given):
    check_batches(3, 3)
    with pytest.raises(UserError, match=r'its exact_resume\.'):
        check_batches(*given)
