"""Samplers, their seeds, and those that do not repeat themselves."""

import numpy as np
import pytest
from mmengine.dataset import DefaultSampler, InfiniteSampler
from torch.utils.data import BatchSampler, DataLoader, Sampler

from mmwave.engine.exact_resume.positions import number_batches
from mmwave.engine.exact_resume.samplers import (
    begin_turn,
    samplers_of,
    seeds_of,
    set_seeds,
    unrepeatable,
)
from mmwave.engine.exact_resume.seeding import Origin


class Items(list):
    """A data set that takes attributes."""


class Own(Sampler):
    """A user's."""

    def __init__(self, kind):
        self.kind = kind
        self.generator = np.random.default_rng(0)
        self.count = 0

    def __iter__(self):
        self.count += 1
        if self.kind == 'global':
            return iter(np.random.permutation(8).tolist())
        if self.kind == 'own':
            return iter(self.generator.permutation(8).tolist())
        if self.kind == 'entropy':
            return iter(np.random.default_rng().permutation(8).tolist())
        return iter(np.random.default_rng(self.count).permutation(8).tolist())

    def __len__(self):
        return 8


def loader_of(sampler):
    return DataLoader(Items(range(8)), sampler=sampler, batch_size=2)


@pytest.mark.parametrize(
    ('kind', 'by_epoch', 'told'),
    [
        ('global', True, False),
        ('own', True, False),
        ('entropy', False, True),
        ('counts', True, True),
        ('counts', False, False),
    ],
)
def test_samplers_of_users(kind, by_epoch, told):
    loader = loader_of(Own(kind))
    assert unrepeatable(loader, by_epoch=by_epoch) == (['Own'] if told else [])
    assert loader.sampler.count == 0


def test_known_samplers_are_not_asked():
    sampler = DefaultSampler(range(8), seed=0)
    assert unrepeatable(loader_of(sampler), by_epoch=True) == []


@pytest.mark.parametrize('kind', [DefaultSampler, InfiniteSampler])
def test_seeds_are_taken_over(kind):
    """Of samplers of batches too, after the loader was changed."""

    def order(seed, taken=None):
        sampler = kind(range(8), seed=seed)
        loader = DataLoader(Items(range(8)), batch_sampler=BatchSampler(sampler, 2, False))
        number_batches(loader, Origin(0, 0))
        assert [type(s) for s in samplers_of(loader)][:2] == [BatchSampler, kind] or (
            kind in map(type, samplers_of(loader))
        )
        if taken is not None:
            set_seeds(loader, [taken])
            assert seeds_of(loader) == [taken]
        batches = iter(loader.batch_sampler)
        return [next(batches) for _ in range(4)]

    assert order(1, taken=2) == order(2) != order(1)


def test_a_turn_is_told_to_the_sampler():
    sampler = DefaultSampler(range(8), seed=0)
    begin_turn(loader_of(sampler), 3)
    assert sampler.epoch == 3
