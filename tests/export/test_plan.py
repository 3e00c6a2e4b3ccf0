"""Sizes and numbers of images of a file."""

import pytest
from mmengine.config import Config
from torch import nn

from mmwave.apis import UsageError
from mmwave.export import plan
from mmwave.export.plan import LEAST, Plan, parse_size
from mmwave.structures import SizeConstraint


def config(*steps):
    return Config(dict(test_dataloader=dict(dataset=dict(pipeline=list(steps)))))


def test_free_sizes_are_compared_at_two_sizes_and_two_batches_other_than_the_traced_one():
    made = Plan.of(config(), False, 1)
    assert (made.sizes, made.batches) == (f'any from {LEAST}x{LEAST} up', 'any')
    for axis in (0, 1):
        seen = [made.example[axis], *(tried[axis] for tried in made.tried)]
        assert len(set(seen)) == len(seen) == 3


def test_a_fixed_size():
    made = Plan.of(config(), (64, 96), 4)
    assert made.example == made.tried[0] == (4, (64, 96))
    assert (made.sizes, made.batches, made.is_free) == ('64x96', '4', False)


@pytest.mark.parametrize(
    ('step', 'size'),
    [
        (dict(type='CenterCrop', crop_size=224), (224, 224)),
        (dict(type='mmpretrain.CenterCrop', crop_size=(320, 224)), (224, 320)),
        (dict(type='Resize', scale=(1024, 512)), (512, 1024)),
        (dict(type='Resize', scale=96, keep_ratio=False), (96, 96)),
    ],
)
def test_the_size_of_the_test_images(step, size):
    found = plan.test_size(config(dict(type='Resize', scale=7), step, dict(type='PackInputs')))
    assert found == size
    assert Plan.of(config(step), True, 1).example == (1, size)


@pytest.mark.parametrize(
    'cfg', [Config({}), config(), config(dict(type='Resize', scale=(1333, 800), keep_ratio=True))]
)
def test_test_images_of_several_sizes(cfg):
    with pytest.raises(UsageError, match=r'^--fixed: .* name one with --fixed HxW$'):
        Plan.of(cfg, True, 1)


@pytest.mark.parametrize(('fixed', 'batch'), [(False, 0), ((64, 64), -1), (False, 2)])
def test_batches_that_cannot_be(fixed, batch):
    with pytest.raises(UsageError, match=rf'^--batch {batch}: '):
        Plan.of(config(), fixed, batch)


def test_sizes_as_text():
    assert parse_size('512x1024') == (512, 1024)
    for text in ('', '512', '0x64', '64x', 'axb', '64x64x3', '-1x64', '1e3x64'):
        with pytest.raises(UsageError, match=r'^--fixed .*: expected HxW in pixels'):
            parse_size(text)


def test_sizes_that_a_backbone_refuses():
    model = nn.Sequential(nn.ReLU())
    model[0].size_constraint = SizeConstraint(only=(224, 224))
    with pytest.raises(UsageError, match=r'it must have 224 x 224; give --fixed HxW$'):
        Plan.of(config(), False, 1).check(model)
    with pytest.raises(UsageError, match=r'it must have 224 x 224$'):
        Plan.of(config(), (64, 64), 1).check(model)
    Plan.of(config(), (224, 224), 1).check(model)
