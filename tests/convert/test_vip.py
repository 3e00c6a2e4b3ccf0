"""The Vision Permutator's published files become the models that mmwave builds."""

from dataclasses import asdict

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file
from mmwave.errors import UserError
from mmwave.models.backbones.vip import ARCHS, ViPArch
from tests import parity

from .ours import model_of, recognised
from .published import vip

TINY = {'depths': (1, 2, 1, 1), 'dims': (8, 16, 16, 16), 'patch_size': 28, 'grids': (8, 4, 4, 4)}


def published_file(path, key=None, **sizes):
    """The authors' file of the tiny sizes, in an entry of a checkpoint or bare; what is written."""
    state = parity.state_dict(vip(**{**TINY, **sizes}).items())
    torch.save({key: state, 'epoch': 300} if key else state, path)
    return state


@pytest.mark.parametrize('key', ['state_dict', None])
def test_files_and_their_metadata(tmp_path, key):
    state = published_file(tmp_path / 'vip.pth', key)
    report = convert_file(tmp_path / 'vip.pth', tmp_path / 'a.pth')
    assert report.read == report.written
    assert {k: report.meta[k] for k in ('family', 'arch', 'framework', 'licence')} == {
        'family': 'vip',
        'arch': 'custom',
        'framework': 'pytorch',
        'licence': 'LicenseRef-MIT-non-commercial',
    }
    arch = {k: list(v) if isinstance(v, tuple) else v for k, v in TINY.items()}
    assert report.meta['backbone'] == {'type': 'mmwave.ViP', 'arch': arch}
    converted = read_checkpoint(tmp_path / 'a.pth')
    model = model_of(converted, out_indices=(3,))
    mixer = model.stages[1][1].mixer
    for published, part in (
        ('mlp_h', mixer.height),
        ('mlp_w', mixer.width),
        ('mlp_c', mixer.channel),
        ('proj', mixer.proj),
        ('reweight.fc2', mixer.reweight.fc2),
    ):
        wanted = state[f'network.2.1.attn.{published}.weight']
        assert torch.equal(part.weight, wanted.double())
    assert torch.equal(model.downsamples[0].conv.bias, state['network.1.proj.bias'].double())
    assert torch.equal(converted['state_dict']['head.fc.bias'], state['head.bias'])
    with pytest.raises(ValueError, match='converted already'):
        convert_file(tmp_path / 'a.pth', tmp_path / 'b.pth')


@pytest.mark.parametrize('name', ARCHS)
@pytest.mark.parametrize('classes', [1000, 0])
def test_every_arch_is_recognised_and_filled(name, classes):
    sizes = asdict(ARCHS[name])
    sizes['grids'] = [side for side, _ in sizes['grids']]
    family, target = recognised(vip(**sizes, classes=classes), 'pytorch')
    assert (family, target.arch) == ('vip', name)
    assert target.backbone == {'type': 'mmwave.ViP', 'arch': name}
    assert ('head.fc.weight' in target.expected) == bool(classes)


@pytest.mark.parametrize(
    ('changes', 'stated'),
    [
        ({'mlp_ratio': 2}, {'mlp_ratio': 2}),
        ({'dims': (8, 8, 8, 16), 'grids': (8, 8, 8, 4)}, {'dims': [8, 8, 8, 16]}),
        ({'dims': (8, 16, 16, 32), 'patch_size': 14, 'grids': (16, 8, 8, 4)}, {'patch_size': 14}),
        ({'dims': (8,) * 4, 'grids': (8,) * 4}, {'grids': [8, 8, 8, 8]}),
    ],
    ids=str,
)
def test_other_sizes(changes, stated):
    sizes = {**TINY, **changes}
    if sizes['patch_size'] == 14:
        sizes['dims'] = (16, 16, 16, 32)
    _, target = recognised(vip(**sizes, channels=2), 'pytorch')
    arch = target.backbone['arch']
    assert target.backbone == {'type': 'mmwave.ViP', 'arch': arch, 'in_channels': 2}
    assert stated.items() <= arch.items()
    assert ViPArch(**arch) == ViPArch(**sizes)


FIRST = 'network.0.0.mlp.fc1.weight'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            {'patch_embed.proj.weight': (8, 3, 28)},
            r'proj.weight has shape \(8, 3, 28\)',
        ),
        ({FIRST: (24,)}, rf'no Vision Permutator: {FIRST} has shape \(24,\), expected 2 axes'),
        ({FIRST: (25, 8)}, 'hidden channels of stage 0: 25 is no multiple of 8'),
        ({FIRST: (18, 6)}, 'no ViP that we build: .* must be multiples of the sides of grids'),
        ({FIRST: (16, 8)}, r'mlp_ratio \(2, 3, 3, 3\): expected one for all'),
        (
            {'patch_embed.proj.weight': (8, 3, 26, 26)},
            'stage 0: 224 is no multiple of 26',
        ),
        ({'network.6.proj.weight': (1,)}, r'its transitions \[1, 6\]'),
        ({'network.6.0.mlp.fc1.weight': (24, 8)}, r'its stages are \[0, 2, 3, 4, 6\]'),
    ],
)
def test_shapes_of_no_vision_permutator(change, message):
    with pytest.raises(UserError, match=message):
        recognised(vip(**TINY) | change)


def test_tensors_too_many_or_too_few_are_listed(tmp_path):
    state = published_file(tmp_path / 'a')
    del state['network.2.1.attn.mlp_w.weight'], state['network.1.proj.bias']
    state |= {
        'network.0.0.attn.mlp_h.bias': torch.ones(8),
        'network.1.norm.weight': torch.ones(16),
    }
    torch.save(state, tmp_path / 'a')
    with pytest.raises(ValueError, match='4 tensors do not fit') as caught:
        convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    for text in (
        'no rule for network.1.norm.weight',
        'backbone.stages.1.1.mixer.width.weight is not filled',
        'backbone.downsamples.0.conv.bias is not filled',
        'backbone.stages.0.0.mixer.height.bias is not in the target',
    ):
        assert text in str(caught.value)
