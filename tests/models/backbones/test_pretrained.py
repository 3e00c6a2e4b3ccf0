"""Loading weights into backbones, beside what test_contract.py asks of each of them."""

import pytest
import torch

from mmwave.models import WaveMLP
from tests.contracts import build, images, relative_error
from tests.families import TINY


def saved(tmp_path, name, backbone, **options):
    """A file of a tiny model, which says of itself what ``backbone`` does; and its state."""
    state = build(name, TINY[name] | backbone.get('arch', {}), **options).state_dict()
    if 'arch' in backbone:
        backbone = backbone | {'arch': TINY[name] | backbone['arch']}
    path = str(tmp_path / 'weights.pth')
    meta = dict(backbone=dict(type=f'mmwave.{name}', **backbone))
    torch.save(dict(meta=meta, state_dict=state), path)
    return dict(type='Pretrained', checkpoint=path), state


@pytest.mark.parametrize(
    ('name', 'theirs', 'mine', 'message'),
    [
        # Most tensors of the one fit the other: half a match is no match.
        ('WaveMLP', dict(phase='fc'), dict(phase='dw'), r"WaveMLPArch\(.*'fc'.*phase='dw'"),
        ('RepMLPNet', dict(windows=(8, 4, 2, 2)), {}, r'RepMLPNetArch\(.*\(2, 2\).*\(1, 1\)'),
    ],
)
def test_weights_of_another_arch_are_refused(name, theirs, mine, message, tmp_path):
    pretrained, _ = saved(tmp_path, name, dict(arch=theirs))
    with pytest.raises(ValueError, match=f'with arch={message}'):
        build(name, TINY[name] | mine, init_cfg=pretrained).init_weights()
    build(name, TINY[name] | theirs, init_cfg=pretrained).init_weights()


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    pretrained, state = saved(tmp_path, 'GMLP', {})
    name = next(name for name, tensor in state.items() if tensor.is_floating_point())
    state[name].view(-1)[0] = value
    torch.save(state, pretrained['checkpoint'])
    with pytest.raises(ValueError, match=rf'weights\.pth holds no weights .* 1 NaN .*: {name}'):
        build('GMLP', TINY['GMLP'], init_cfg=pretrained).init_weights()


def test_weights_of_another_family_are_refused(tmp_path):
    pretrained, _ = saved(tmp_path, 'GMLP', {})
    with pytest.raises(ValueError, match='is of a GMLP, this backbone is a ResMLP'):
        build('ResMLP', TINY['ResMLP'], init_cfg=pretrained).init_weights()


def test_tanh_gelu_is_another_function_and_its_weights_are_not_mistaken(tmp_path):
    tiny, tanh = TINY['WaveMLP'], dict(type='GELU', approximate='tanh')
    pretrained, state = saved(tmp_path, 'WaveMLP', dict(act_cfg=tanh), act_cfg=tanh)
    with pytest.raises(ValueError, match=r"act_cfg=\{'type': 'GELU', 'approximate': 'tanh'\}"):
        WaveMLP(tiny, init_cfg=pretrained).init_weights()
    model = WaveMLP(tiny, act_cfg=tanh, init_cfg=pretrained).eval()
    model.init_weights()
    # A file of the PyTorch release names no activation and means the exact one.
    plain, _ = saved(tmp_path, 'WaveMLP', {})
    with pytest.raises(ValueError, match=r"with act_cfg=\{'type': 'GELU'\}"):
        WaveMLP(tiny, act_cfg=tanh, init_cfg=plain).init_weights()
    exact = WaveMLP(tiny).eval()
    exact.load_state_dict(state)
    x = images(1, 3, 64, 64)
    assert 1e-6 < relative_error(model(x)[3], exact(x)[3]) < 1e-1


def test_paths_that_are_none():
    model = build('ResMLP', TINY['ResMLP'])
    with pytest.raises(ValueError, match='must be a local file'):
        model.load_pretrained('https://example.org/weights.pth')
    with pytest.raises(ValueError, match='path of the pretrained weights is empty'):
        model.load_pretrained('')
