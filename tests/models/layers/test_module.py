"""A module that mmengine initialises."""

import copy
import subprocess
import sys

import pytest
import torch
from mmengine.model import BaseModule
from torch import nn

from mmwave.models.layers import Module


class Two(Module):
    def __init__(self, init_cfg=None, part_cfg=None):
        super().__init__(init_cfg)
        self.own = nn.Linear(2, 2)
        self.part = Part(part_cfg)


class Part(Module):
    def __init__(self, init_cfg=None):
        super().__init__(init_cfg)
        self.layer = nn.Linear(2, 2)


def constant(value, **more):
    return dict(type='Constant', layer='Linear', val=value, **more)


def test_it_counts_as_mmengines():
    assert isinstance(Module(), BaseModule)
    assert issubclass(Two, BaseModule)


def test_weights_are_initialised_as_the_config_says():
    model = Two(constant(3.0))
    assert not model.is_init
    model.init_weights()
    assert model.is_init
    assert (model.own.weight == 3).all()
    assert (model.part.layer.weight == 3).all()


def test_parts_come_after_with_configs_of_their_own():
    model = Two([constant(3.0)], constant(4.0))
    model.init_weights()
    assert (model.own.weight == 3).all()
    assert (model.part.layer.weight == 4).all()
    assert model.part.is_init


@pytest.mark.parametrize('inner', [Module, BaseModule])
def test_mmengines_modules_initialise_ours(inner):
    class Outer(BaseModule):
        def __init__(self):
            super().__init__()
            self.inner = inner(constant(5.0))
            self.inner.layer = nn.Linear(2, 2)

    model = Outer()
    model.init_weights()
    assert (model.inner.layer.weight == 5).all()


def test_the_config_is_a_copy_and_shown():
    config = constant(3.0)
    model = Two(config)
    config['val'] = 4.0
    assert model.init_cfg == constant(3.0)
    assert repr(model).endswith(f'\ninit_cfg={constant(3.0)}')
    assert 'init_cfg' not in repr(Module())
    assert copy.deepcopy(model).init_cfg == model.init_cfg


def test_nothing_is_drawn_or_changed_without_a_config():
    torch.manual_seed(0)
    model = Two()
    before = copy.deepcopy(model.state_dict())
    model.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


LATE = """
import sys
from mmwave.models.layers import Module
model = Module()
assert 'mmengine.model' not in sys.modules
from mmengine.model import BaseModule
assert not isinstance(model, BaseModule)
model.init_weights()
assert isinstance(model, BaseModule) and model.is_init
"""


def test_mmengine_is_imported_when_it_is_needed():
    subprocess.run([sys.executable, '-W', 'ignore', '-c', LATE], check=True, timeout=120)
