"""Activations by their configs, with mmcv and without."""

import subprocess
import sys

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn

from mmwave.models.layers import build_activation


@pytest.mark.parametrize(
    ('cfg', 'expected'),
    [
        (dict(type='GELU'), nn.GELU()),
        (dict(type='GELU', approximate='tanh'), nn.GELU(approximate='tanh')),
        (dict(type='ReLU', inplace=True), nn.ReLU()),
        (dict(type='LeakyReLU', negative_slope=0.2), nn.LeakyReLU(0.2)),
        (dict(type='SiLU'), nn.SiLU()),
        (dict(type='Softplus', beta=2), nn.Softplus(2)),
        (dict(type=nn.Hardswish), nn.Hardswish()),
    ],
    ids=lambda value: value.get('type') if isinstance(value, dict) else '',
)
def test_torchs(cfg, expected):
    before = dict(cfg)
    act = build_activation(cfg)
    assert repr(act) == repr(expected)
    assert cfg == before
    x = torch.linspace(-3, 3, 50)
    assert torch.equal(act(x), expected(x))
    assert not getattr(act, 'inplace', False)


@pytest.mark.parametrize('name', ['HSigmoid', 'HSwish', 'Swish', 'Clamp', 'Clip'])
def test_mmcvs_are_mmcvs(name):
    theirs = pytest.importorskip('mmcv.cnn').build_activation_layer(dict(type=name))
    act = build_activation(dict(type=name))
    assert type(act) is type(theirs)


def test_a_users_own():
    @MODELS.register_module(name='TestsOwnActivation')
    class Own(nn.Module):
        def __init__(self, power=2):
            super().__init__()
            self.power = power

    try:
        assert build_activation(dict(type='TestsOwnActivation', power=3)).power == 3
    finally:
        MODELS.module_dict.pop('TestsOwnActivation')


def test_an_unknown_one_is_named():
    with pytest.raises(ValueError, match=r"^unknown activation 'GLEU': expected"):
        build_activation(dict(type='GLEU'))


def test_without_mmcv():
    code = """
import sys
sys.modules['mmcv'] = None
from mmwave.models.layers import build_activation
print(build_activation(dict(type='GELU', approximate='tanh')), build_activation(dict(type='Mish')))
try:
    build_activation(dict(type='HSwish'))
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=120)
    first, second = done.stdout.splitlines()
    assert first == "GELU(approximate='tanh') Mish()", done.stderr
    assert second.startswith("unknown activation 'HSwish'")
