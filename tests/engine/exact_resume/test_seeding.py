"""Generators seeded by a position."""

import random

import numpy as np
import pytest
import torch

from mmwave.engine.exact_resume.own_generators import holders, own_generators
from mmwave.engine.exact_resume.seeding import Origin, Purpose, seed_generators


def draw(*args, own=()):
    seed_generators(*args, own=own)
    return random.random(), np.random.rand(), torch.rand(()).item()


def test_every_position_has_numbers_of_its_own():
    keys = [
        (Origin(seed, rank), purpose, *position)
        for seed in (0, 1)
        for rank in (0, 1)
        for purpose in Purpose
        for position in [(0,), (1,), (0, 1), (0, 0, 1), (0, 0, 0, 1), (2**40, 7)]
    ]
    drawn = [draw(*key) for key in keys]
    for numbers in zip(*drawn, strict=True):
        assert len(set(numbers)) == len(keys)
    assert [draw(*key) for key in keys] == drawn


def test_generators_that_objects_hold():
    own = [
        random.Random(3),
        np.random.RandomState(3),
        np.random.default_rng(3),
        np.random.Generator(np.random.MT19937(3)),
        torch.Generator(),
    ]

    class Transform:
        def __init__(self, inner):
            self.transforms = [inner, {'more': own[1:]}]
            self.itself = self
            self.samples = [own[0]] * 1000  # too long to look into

    root = Transform(Transform(own[0]))
    found = own_generators(root)
    assert {id(g) for g in found} == {id(g) for g in own}
    assert own_generators(root, without=root) == []
    assert holders(root, 'itself') == ['Transform']

    def numbers():
        draw(Origin(0, 0), Purpose.SAMPLE, 1, own=found)
        return [
            *(own[0].random(), own[1].rand(), own[2].random(), own[3].random()),
            torch.rand((), generator=own[4]).item(),
        ]

    first = numbers()
    for _ in range(3):
        own[2].random()
    assert numbers() == first
    assert len(set(first)) == 5


@pytest.mark.gpu
def test_the_generator_of_a_gpu():
    device = torch.device('cuda')
    drawn = []
    for _ in range(2):
        seed_generators(Origin(0, 0), Purpose.STEP, 3, device=device)
        drawn.append(torch.rand(4, device=device))
    assert torch.equal(*drawn)
