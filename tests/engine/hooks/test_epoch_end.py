"""Epochs that cannot come to their end."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from mmwave.engine.exact_resume.positions import number_batches
from mmwave.engine.exact_resume.seeding import Origin
from mmwave.engine.hooks import EpochEndHook
from mmwave.errors import UserError


class Pooled(nn.Module):
    """Batch norms on a map and on what it is pooled to."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.pooled = nn.BatchNorm2d(3)

    def forward(self, x):
        return self.pooled(self.norm(x).mean((2, 3), keepdim=True))


def runner_of(model, *, images=5, batch=2, drop_last=False, endless=False, by_epoch=True):
    data = TensorDataset(torch.rand(images, 3, 4, 4))
    sampler = (InfiniteSampler if endless else DefaultSampler)(data)
    loader = DataLoader(data, batch_size=batch, sampler=sampler, drop_last=drop_last)
    kind = EpochBasedTrainLoop if by_epoch else IterBasedTrainLoop
    return SimpleNamespace(train_dataloader=loader, train_loop=kind.__new__(kind), model=model)


class Regions(nn.Module):
    """A batch norm on vectors of several regions of each image."""

    def __init__(self):
        super().__init__()
        self.pooled = nn.BatchNorm1d(3)

    def forward(self, x):
        return self.pooled(x.flatten(2).transpose(1, 2).flatten(0, 1))


class Stream(IterableDataset):
    """Images of a stream without a length."""

    def __iter__(self):
        yield from torch.rand(4, 3, 4, 4)


def first_step(runner):
    hook = EpochEndHook()
    hook.before_train(runner)
    batch = next(iter(runner.train_dataloader))
    runner.model(batch[0] if isinstance(batch, list) else batch)
    hook.after_train_iter(runner, 0)
    assert not runner.model.pooled._forward_pre_hooks


@pytest.mark.parametrize('by_epoch', [True, False])
def test_a_last_batch_of_one_ends_the_run_after_its_first_step(by_epoch):
    with pytest.raises(UserError, match=r'norms \(pooled\) get a map of one pixel.*drop_last'):
        first_step(runner_of(Pooled(), by_epoch=by_epoch))


@pytest.mark.parametrize(
    'settings',
    [dict(images=6), dict(drop_last=True), dict(endless=True, by_epoch=False)],
    ids=['even', 'dropped', 'endless'],
)
def test_other_last_batches_are_left_alone(settings):
    first_step(runner_of(Pooled(), **settings))


def test_so_is_one_where_no_norm_minds():
    model = Pooled()
    model.pooled.eval()  # norm_eval
    first_step(runner_of(model))


def test_batches_of_one_are_refused_by_the_name_of_the_norm():
    with pytest.raises(UserError, match=r'batch norm pooled gets one value .* \(1 x 3 x 1 x 1\)'):
        first_step(runner_of(Pooled(), batch=1))


def test_it_is_found_where_batches_are_numbered():
    runner = runner_of(Pooled())
    number_batches(runner.train_dataloader, Origin(0, 0))
    with pytest.raises(UserError, match='norms'):
        first_step(runner)


@pytest.mark.parametrize('batch', [1, 2])
def test_several_values_of_an_image_are_enough(batch):
    first_step(runner_of(Regions(), batch=batch))


def test_a_stream_has_no_last_batch():
    runner = runner_of(Pooled())
    runner.train_dataloader = DataLoader(Stream(), batch_size=2)
    first_step(runner)


def test_an_epoch_over_an_endless_sampler_never_ends():
    with pytest.raises(
        UserError, match=r'is of type InfiniteSampler.*type=DefaultSampler, or count'
    ):
        EpochEndHook().before_train(runner_of(Pooled(), endless=True))
