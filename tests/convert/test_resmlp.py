"""ResMLP's published files become the models that mmwave builds."""

import json
from dataclasses import asdict

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file
from mmwave.errors import UserError
from mmwave.models.backbones.resmlp import ARCHS
from tests import parity
from tests.contracts import ROOT, relative_error

from .ours import logits_of, model_of, recognised
from .published import deit, paddlevit, resmlp, write_paddle_training

GOLDENS = json.loads((ROOT / 'tests' / 'data' / 'resmlp-formats.json').read_text())
TINY = {'depth': 2, 'dim': 24, 'grid': 4}
RELEASES = {'timm': lambda shapes: shapes, 'deit': deit, 'paddle': paddlevit}


def drawn(shapes):
    """Tensors drawn as for the golden: scales about one, vectors whatever their shape."""
    state = {}
    for name, shape in shapes.items():
        other = name.replace('.alpha', '.weight').replace('.beta', '.bias')
        other = f'{other}.weight' if '.ls' in name or '.gamma' in name else other
        flat = shape[-1:] if shape[:2] == (1, 1) else shape
        state[name] = parity.weight(other, flat).reshape(shape)
    return state


def paddle_training_file(path):
    sizes = {size: GOLDENS['paddle-training'][size] for size in TINY}
    state = drawn(paddlevit(resmlp(**sizes)))
    raw = {name: tensor * 1.01 for name, tensor in state.items()}
    write_paddle_training(path, model=raw, model_ema=state)
    return state


# Measured 4.0e-16.
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_converted_model_computes_what_the_published_one_does(tmp_path, suffix):
    paddle_training_file(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / f'converted{suffix}')
    assert report.read == report.written
    assert report.meta['weights'] == 'ema'
    converted = read_checkpoint(tmp_path / f'converted{suffix}')
    wanted = torch.tensor(GOLDENS['paddle-training']['logits'], dtype=torch.float64)
    got = logits_of(converted, parity.image(GOLDENS['paddle-training']['input']))
    assert relative_error(got, wanted) <= 1e-14


def test_averaged_or_raw_weights_and_square_ones(tmp_path):
    state = paddle_training_file(tmp_path / 'source')
    published = state['mixer_layers.1.linear_tokens.weight']
    for ema, factor in ((True, 1.0), (False, 1.01)):
        convert_file(tmp_path / 'source', tmp_path / 'converted.pth', ema=ema)
        converted = read_checkpoint(tmp_path / 'converted.pth')['state_dict']
        got = converted['backbone.stages.3.0.tokens.weight']
        assert torch.equal(got, (published * factor).T)


@pytest.mark.parametrize('wrapped', [False, True])
def test_files_of_deit_and_timm_become_the_same(tmp_path, wrapped):
    names = resmlp(**TINY)
    state = drawn(names)
    theirs = deit(names)
    renamed = {k: state[n].reshape(theirs[k]) for k, n in zip(theirs, names, strict=True)}
    torch.save(state, tmp_path / 'timm')
    torch.save({'model': renamed} if wrapped else renamed, tmp_path / 'deit')
    reports = {k: convert_file(tmp_path / k, tmp_path / f'{k}.pth') for k in ('timm', 'deit')}
    assert reports['deit'].meta['origin'] == 'facebookresearch/deit resmlp_models.py'
    assert reports['deit'].backbone == reports['timm'].backbone
    assert reports['deit'].backbone['arch'] == {'depths': [0, 1, 0, 1], 'dim': 24, 'grid': 4}
    one, two = (read_checkpoint(tmp_path / f'{k}.pth')['state_dict'] for k in reports)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    block = model_of(read_checkpoint(tmp_path / 'deit.pth'), out_indices=-1).stages[3][0]
    assert torch.equal(block.norm2.weight, state['blocks.1.norm2.alpha'].flatten().double())
    assert torch.equal(block.norm2.bias, state['blocks.1.norm2.beta'].flatten().double())
    assert torch.equal(block.scale1, state['blocks.1.ls1'].double())
    assert torch.equal(block.scale2, state['blocks.1.ls2'].double())


@pytest.mark.parametrize('release', RELEASES)
@pytest.mark.parametrize('name', ARCHS)
def test_every_arch_is_recognised_and_filled(name, release):
    sizes = asdict(ARCHS[name])
    depth, (grid, _) = sum(sizes.pop('depths')), sizes.pop('grid')
    del sizes['scale_init']
    shapes = RELEASES[release](resmlp(**sizes, depth=depth, grid=grid, classes=1000))
    framework = 'paddle' if release == 'paddle' else 'pytorch'
    family, target = recognised(shapes, framework)
    assert (family, target.arch) == ('resmlp', name)
    assert target.backbone == {'type': 'mmwave.ResMLP', 'arch': name}


@pytest.mark.parametrize(
    ('sizes', 'arch'),
    [
        ({'depth': 3, 'classes': None}, {'depths': [0, 1, 1, 1], 'dim': 24, 'grid': 4}),
        (
            {'depth': 6, 'mlp_ratio': 2, 'patch_size': 8, 'grid': 5},
            {'depths': [1, 2, 1, 2], 'dim': 24, 'mlp_ratio': 2, 'patch_size': 8, 'grid': 5},
        ),
    ],
    ids=str,
)
def test_other_sizes(sizes, arch):
    _, target = recognised(resmlp(**{**TINY, **sizes}, channels=4), 'pytorch')
    assert target.backbone == {'type': 'mmwave.ResMLP', 'arch': arch, 'in_channels': 4}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'stem.proj.weight': (24, 3, 16)}, 'no ResMLP: stem.proj.weight has shape'),
        ({'blocks.0.linear_tokens.weight': (8, 8)}, '8 positions are no square'),
        ({'blocks.0.linear_tokens.weight': (4, 4, 1)}, 'no ResMLP: .*, expected 2 axes'),
        (
            {'blocks.0.mlp_channels.fc1.weight': (25, 24)},
            'ResMLP: 25 is no multiple of 24',
        ),
    ],
)
def test_shapes_of_no_resmlp(change, message):
    with pytest.raises(UserError, match=message):
        recognised(resmlp(**TINY) | change)


def test_tensors_too_many_or_too_few_are_listed(tmp_path):
    state = drawn(resmlp(**TINY))
    del state['blocks.1.ls2'], state['norm.beta']
    state |= {'extra': torch.ones(1), 'blocks.0.norm1.alpha': torch.ones(2, 1, 24)}
    torch.save(state, tmp_path / 'a')
    with pytest.raises(ValueError, match='tensors do not fit') as caught:
        convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    for text in (
        'no rule for extra',
        'blocks.0.norm1.alpha of shape (2, 1, 24): no vector',
        'backbone.stages.3.0.scale2 is not filled',
        'backbone.out_norms.3.bias is not filled',
    ):
        assert text in str(caught.value)
