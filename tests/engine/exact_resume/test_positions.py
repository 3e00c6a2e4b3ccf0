"""Samples that are drawn from their position, whoever loads them."""

import random

import numpy as np
import pytest
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Subset,
)

from mmwave.engine.exact_resume.positions import (
    leave_batches,
    number_batches,
    why_not_numbered,
)
from mmwave.engine.exact_resume.seeding import Origin


class Draws(Dataset):
    """Samples that are their index and numbers of four generators."""

    def __init__(self):
        self.transforms = [{'own': np.random.default_rng(0)}]

    def __len__(self):
        return 10

    def __getitem__(self, index):
        assert type(index) is int
        own = self.transforms[0]['own'].random()
        return index, random.random(), np.random.rand(), torch.rand(()).item(), own


def loader_of(sampler=DefaultSampler, dataset=None, workers=0, **options):
    dataset = Draws() if dataset is None else dataset
    order = sampler(dataset) if sampler is RandomSampler else sampler(dataset, seed=0)
    return DataLoader(
        dataset,
        batch_sampler=BatchSampler(order, 3, drop_last=False),
        num_workers=workers,
        persistent_workers=workers > 0,
        collate_fn=list,
        **options,
    )


def epochs(loader, first=0, start=0, rank=0, count=2):
    """Return the batches of some epochs."""
    batches = number_batches(loader, Origin(1, rank))
    found = []
    for epoch in range(start, count):
        batches.begin_epoch(epoch, first if epoch == start else 0)
        if hasattr(loader.batch_sampler.sampler, 'set_epoch'):
            loader.batch_sampler.sampler.set_epoch(epoch)
        found.append(list(loader))
    return found


@pytest.mark.parametrize('sampler', [DefaultSampler, RandomSampler])
def test_an_epoch_goes_on_in_its_middle(sampler):
    whole = epochs(loader_of(sampler))
    random.seed(5)
    torch.manual_seed(5)
    assert epochs(loader_of(sampler), first=2, start=1) == [whole[1][2:]]
    assert whole[0] != whole[1]
    assert len({sample for epoch in whole for batch in epoch for sample in batch}) == 20
    assert epochs(loader_of(sampler), rank=1) != whole
    assert epochs(loader_of(sampler), first=4, start=1) == [[]]


@pytest.mark.parametrize('context', ['fork', 'spawn'])
def test_workers_make_no_difference(context):
    """Persistent ones, of two epochs; the transforms' own generator is copied to each."""
    assert epochs(loader_of(workers=2, multiprocessing_context=context)) == epochs(loader_of())


def test_turns_of_iterations_are_skipped():
    def turns(loader, skipped):
        batches = number_batches(loader, Origin(1, 0))
        begun = []
        batches.skip_batches(skipped, lambda: begun.append(1))
        return [batch for _ in range(3 - len(begun)) for batch in loader]

    whole = turns(loader_of(), 0)
    assert len(whole) == 12
    for skipped in (0, 1, 4, 5, 11, 12):
        assert turns(loader_of(), skipped)[: 12 - skipped] == whole[skipped:]


def test_an_endless_sampler_is_skipped():
    def some(skipped, count):
        loader = loader_of(InfiniteSampler)
        number_batches(loader, Origin(1, 0)).skip_batches(skipped, pytest.fail)
        batches = iter(loader)
        return [next(batches) for _ in range(count)]

    assert some(7, 5) == some(0, 12)[7:]


def test_nothing_is_loaded_on_the_way():
    class Counts(Draws):
        loaded = 0

        def __getitem__(self, index):
            Counts.loaded += 1
            return index

    loader = loader_of(dataset=Counts())
    number_batches(loader, Origin(1, 0)).skip_batches(5, lambda: None)
    assert Counts.loaded == 0


def test_an_empty_sampler_is_not_skipped_for_ever():
    loader = DataLoader(Draws(), batch_sampler=[])
    with pytest.raises(ValueError, match='no batches'):
        number_batches(loader, Origin(1, 0)).skip_batches(1, lambda: None)


def test_other_loaders_of_the_data_set_and_switching_off():
    loader = loader_of()
    other = DataLoader(loader.dataset, batch_size=2, collate_fn=list)
    given = loader.batch_sampler
    number_batches(loader, Origin(1, 0))
    assert [x[0] for batch in other for x in batch] == list(range(10))
    assert len(loader) == 4
    assert loader.batch_sampler.drop_last is False
    leave_batches(loader)
    assert loader.batch_sampler is given
    assert '__getitems__' not in vars(loader.dataset)


def test_data_sets_that_read_batches():
    loader = loader_of(dataset=Subset(Draws(), range(8)))
    whole = epochs(loader)
    assert epochs(loader_of(dataset=Subset(Draws(), range(8))), first=1, start=1) == [whole[1][1:]]


class Endless(IterableDataset):
    def __iter__(self):
        return iter(range(3))


@pytest.mark.parametrize(
    ('loader', 'reason'),
    [
        ([1], 'a list is no DataLoader'),
        (DataLoader(Endless()), 'Endless is iterated over'),
        (DataLoader(Draws(), batch_size=None), 'loads no batches'),
        (DataLoader([1, 2]), 'of type list takes no attributes'),
    ],
)
def test_what_is_left_alone(loader, reason):
    assert reason in why_not_numbered(loader)
    assert number_batches(loader, Origin(0, 0)) is None
    assert list(loader)
