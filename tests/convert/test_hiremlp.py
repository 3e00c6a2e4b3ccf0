"""Hire-MLP's published files become the models that mmwave builds."""

import argparse
import json
from dataclasses import asdict

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file
from mmwave.errors import UserError
from mmwave.models import HireMLP
from mmwave.models.backbones.hiremlp import ARCHS
from tests import parity
from tests.contracts import ROOT

from .ours import logits_of, model_of, recognised
from .published import TINY, hiremlp, mindspore_entry, mindspore_names, write_mindspore

GOLDENS = json.loads((ROOT / 'tests' / 'data' / 'hiremlp-formats.json').read_text())
FOR_MINDSPORE = {
    'act_cfg': {'type': 'GELU', 'approximate': 'tanh'},
    'shift_direction': 'backward',
}


def golden_state(key):
    sizes = {name: GOLDENS[key][name] for name in ('depths', 'dims', 'mlp_ratios')}
    return parity.state_dict(hiremlp(**sizes).items())


def deit_file(path):
    """A checkpoint as the release's train.py writes it without averaged weights."""
    args = argparse.Namespace(model='hire_mlp_tiny')
    content = {'model': golden_state('deit'), 'optimizer': {}, 'lr_scheduler': {}, 'epoch': 299}
    torch.save({**content, 'model_ema': None, 'args': args}, path)


def mindspore_file(path):
    state = golden_state('mindspore')
    names = mindspore_names(state)
    write_mindspore(path, [mindspore_entry(names[k], state[k]) for k in state if k in names])


# MindSpore computed its golden in float32: measured 3.3e-7 of the largest logit.
@pytest.mark.parametrize(
    ('key', 'write', 'tolerance'),
    [('deit', deit_file, 1e-12), ('mindspore', mindspore_file, 1e-6)],
)
def test_converted_model_computes_what_the_published_one_does(tmp_path, key, write, tolerance):
    write(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert report.meta['weights'] == 'model'
    converted = read_checkpoint(tmp_path / 'converted.pth')
    wanted = torch.tensor(GOLDENS[key]['logits'], dtype=torch.float64)
    got = logits_of(converted, parity.image(GOLDENS[key]['input']))
    assert (got - wanted).abs().max() <= tolerance * wanted.abs().max()


@pytest.mark.parametrize(('setting', 'off'), [('act_cfg', 5e-5), ('shift_direction', 0.1)])
def test_mindspore_needs_its_own_gelu_and_direction(tmp_path, setting, off):
    mindspore_file(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert {k: report.backbone[k] for k in FOR_MINDSPORE} == FOR_MINDSPORE
    assert report.meta['licence'] == 'Apache-2.0'
    converted = read_checkpoint(tmp_path / 'converted.pth')
    del converted['meta']['backbone'][setting]
    wanted = torch.tensor(GOLDENS['mindspore']['logits'], dtype=torch.float64)
    got = logits_of(converted, parity.image(GOLDENS['mindspore']['input']))
    assert (got - wanted).abs().max() > off * wanted.abs().max()


def test_weights_are_not_loaded_into_a_backbone_of_another_direction(tmp_path):
    mindspore_file(tmp_path / 'source')
    deit_file(tmp_path / 'source2')
    report = convert_file(tmp_path / 'source', tmp_path / 'backward.pth')
    convert_file(tmp_path / 'source2', tmp_path / 'forward.pth')
    arch, gelu = report.backbone['arch'], FOR_MINDSPORE['act_cfg']
    with pytest.raises(ValueError, match=r"shift_direction='backward', this one has .*'forward'"):
        HireMLP(arch, act_cfg=gelu).load_pretrained(str(tmp_path / 'backward.pth'))
    with pytest.raises(ValueError, match=r"shift_direction='forward', this one has .*'backward'"):
        HireMLP(arch, shift_direction='backward').load_pretrained(str(tmp_path / 'forward.pth'))
    HireMLP(arch, **FOR_MINDSPORE).load_pretrained(str(tmp_path / 'backward.pth'))
    HireMLP(arch).load_pretrained(str(tmp_path / 'forward.pth'))


def test_metadata(tmp_path):
    deit_file(tmp_path / 'run.pth')
    meta = convert_file(tmp_path / 'run.pth', tmp_path / 'a.pth').meta
    assert meta['family'] == 'hiremlp'
    assert meta['arch'] == 'custom'
    assert meta['origin'] == 'ggjy/Hire-Wave-MLP.pytorch mlp_based/hire_mlp.py'
    # No licence file: the README and the header of train.py say different things.
    assert meta['licence'] == 'LicenseRef-MIT-in-README-CC-BY-NC-in-code'
    arch = {'depths': [2, 1, 2, 1], 'dims': [8, 12, 16, 24], 'mlp_ratios': [2] * 4}
    assert meta['backbone'] == {'type': 'mmwave.HireMLP', 'arch': arch}


def shapes_of(arch, **kwargs):
    sizes = {k: v for k, v in asdict(arch).items() if not k.startswith('shift')}
    return hiremlp(**sizes, **kwargs)


@pytest.mark.parametrize('name', ARCHS)
@pytest.mark.parametrize(('classes', 'levels'), [(1000, (3,)), (None, (0, 1, 2, 3))])
def test_every_arch_is_recognised_and_filled(name, classes, levels):
    _, target = recognised(shapes_of(ARCHS[name], classes=classes))
    assert target.arch == name
    assert target.backbone == {'type': 'mmwave.HireMLP', 'arch': name}
    for i in range(4):
        assert (f'backbone.out_norms.{i}.weight' in target.expected) == (i in levels)
    assert target.expected.get('head.fc.bias') == (classes and (classes,))


def test_the_published_mindspore_names_are_recognised():
    shapes = shapes_of(ARCHS['t'], classes=1000)
    named = {theirs: shapes[ours] for ours, theirs in mindspore_names(shapes).items()}
    assert {'patch_embed.norm.gamma', 'network.0.0.attn.mlp_h1_norm.moving_mean'} <= set(named)
    assert recognised(named, 'mindspore')[1].arch == 't'


def test_recognises_other_sizes_and_image_channels():
    sizes = dict(depths=(1, 2, 1, 1), dims=(8, 8, 16, 8), mlp_ratios=(2, 3, 4, 1))
    _, target = recognised(hiremlp(**sizes, region_sizes=(2, 5, 3, 1), channels=5))
    assert target.arch == 'custom'
    assert target.backbone['in_channels'] == 5
    wanted = {name: list(value) for name, value in sizes.items()}
    assert target.backbone['arch'] == {**wanted, 'region_sizes': [2, 5, 3, 1]}


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('network.4.0.mlp.fc1.weight'), r'no Hire-MLP: network\.4\.0.* is missing'),
        (
            lambda s: s.update({'network.0.0.mlp.fc1.weight': (33, 8, 1, 1)}),
            'stage 0: 33 is no multiple of 8',
        ),
        (
            lambda s: s.update({'network.2.0.attn.mlp_h1.weight': (6, 37, 1, 1)}),
            'mlp_h1 of stage 1: 37 is no multiple of 12',
        ),
    ],
)
def test_shapes_of_no_hiremlp(change, message):
    shapes = hiremlp(**TINY)
    change(shapes)
    with pytest.raises(UserError, match=message):
        recognised(shapes)


def test_a_segmentor_becomes_its_backbone(tmp_path):
    published = parity.state_dict(hiremlp(**TINY, classes=None).items())
    heads = {
        'decode_head.conv_seg.weight': torch.ones(3),
        'neck.fpn_convs.0.conv.bias': torch.ones(3),
    }
    state = {f'backbone.{name}': tensor for name, tensor in published.items()} | heads
    torch.save({'meta': {'CLASSES': ('wall',)}, 'state_dict': state}, tmp_path / 'a')
    report = convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    ((reason, names),) = report.dropped.items()
    assert 'beside its backbone' in reason
    assert names == list(heads)
    assert report.meta['origin'] == 'ggjy/Hire-Wave-MLP.pytorch mmseg-v0.11'
    assert report.out_indices == (0, 1, 2, 3)
    model = model_of(read_checkpoint(tmp_path / 'b.pth'))
    for level in range(4):
        norm = published[f'norm{2 * level}.weight']
        assert torch.equal(model.out_norms[str(level)].weight, norm.double())


def test_a_tensor_too_many_or_too_few_stops(tmp_path):
    state = golden_state('deit')
    del state['network.2.0.norm1.bias']
    torch.save({**state, 'extra': torch.ones(1)}, tmp_path / 'a')
    with pytest.raises(ValueError, match='2 tensors do not fit') as caught:
        convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    assert 'no rule for extra' in str(caught.value)
    assert 'backbone.stages.1.0.norm1.bias is not filled' in str(caught.value)
