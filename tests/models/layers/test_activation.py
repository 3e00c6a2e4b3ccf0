"""Activations by their configs, with mmcv and without."""

import subprocess
import sys

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope, Registry
from torch import nn

from mmwave.models.layers import build_activation
from mmwave.models.layers.activation import MMCV_ONLY


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


MMCVS = (
    *('ReLU', 'LeakyReLU', 'PReLU', 'RReLU', 'ReLU6', 'ELU', 'Sigmoid', 'Tanh', 'SiLU', 'GELU'),
    *MMCV_ONLY,
)


@pytest.mark.filterwarnings('ignore:In MMCV v1.4.4')
@pytest.mark.parametrize('name', MMCVS)
def test_mmcvs_are_mmcvs(name):
    theirs = pytest.importorskip('mmcv.cnn').build_activation_layer(dict(type=name))
    act = build_activation(dict(type=name))
    assert type(act) is type(theirs)
    assert repr(act) == repr(theirs)


AS_MMCV = f"""
from mmwave.models.layers import build_activation
before = [type(build_activation(dict(type=name))) for name in {MMCVS}]
import mmcv.cnn
assert before == [type(mmcv.cnn.build_activation_layer(dict(type=name))) for name in {MMCVS}]
"""


def test_they_are_the_same_before_mmcv_is_imported():
    pytest.importorskip('mmcv.cnn')
    subprocess.run([sys.executable, '-W', 'ignore', '-c', AS_MMCV], check=True, timeout=120)


class Own(nn.Module):
    def __init__(self, power=2):
        super().__init__()
        self.power = power

    def forward(self, x):
        return x**self.power


@pytest.fixture
def registered(request):
    """``Own`` in mmengine's registry, or in that of a scope below it."""
    scope = request.param
    registry = Registry('model', parent=MODELS, scope=scope) if scope else MODELS
    registry.register_module(name='TestsOwn', module=Own)
    yield scope
    registry.module_dict.pop('TestsOwn')
    MODELS.children.pop(scope, None)


@pytest.mark.parametrize('registered', [None], indirect=True)
def test_a_users_own(registered):
    assert build_activation(dict(type='TestsOwn', power=3)).power == 3
    assert build_activation(dict(type=Own, power=4)).power == 4


@pytest.mark.filterwarnings('ignore')
@pytest.mark.parametrize('registered', ['tests_scope'], indirect=True)
def test_a_users_own_of_a_scope(registered):
    assert build_activation(dict(type='TestsOwn', power=3, _scope_=registered)).power == 3
    assert build_activation(dict(type=f'{registered}.TestsOwn', power=3)).power == 3
    with DefaultScope.overwrite_default_scope(registered):
        assert build_activation(dict(type='TestsOwn', power=3)).power == 3
        assert isinstance(build_activation(dict(type='GELU')), nn.GELU)


@pytest.mark.parametrize('kind', ['GELU', 'ReLU', 'Mish'])
def test_a_registered_name_wins_over_torchs(kind, monkeypatch):
    monkeypatch.setitem(MODELS.module_dict, kind, Own)
    assert isinstance(build_activation(dict(type=kind)), Own)


def test_an_unknown_one_is_named():
    with pytest.raises(ValueError, match=r"^unknown activation 'GLEU': expected"):
        build_activation(dict(type='GLEU'))


def test_no_type():
    with pytest.raises(KeyError, match='must contain the key "type"'):
        build_activation(dict(inplace=True))


WITHOUT_MMCV = """
import sys
sys.modules['mmcv'] = None
from mmwave.models.layers import build_activation
for cfg in (
    dict(type='GELU', approximate='tanh'),
    dict(type='GELU', _scope_='mmwave'),
    dict(type='Mish'),
    dict(type='HSwish'),
    dict(type='GLEU'),
):
    try:
        print(build_activation(cfg))
    except ValueError as error:
        print(error)
"""


def test_without_mmcv():
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_MMCV], capture_output=True, text=True, timeout=120
    )
    assert not done.stderr
    *torchs, mmcvs, unknown = done.stdout.splitlines()
    assert torchs == ["GELU(approximate='tanh')", "GELU(approximate='none')", 'Mish()']
    assert mmcvs.startswith("activation 'HSwish' needs mmcv: pip install 'mmwave-suite[mmcv]'")
    assert unknown.startswith("unknown activation 'GLEU': expected one of torch.nn")
