"""ActiveMLP's published files become the models that mmwave builds."""

import argparse
import json
from dataclasses import asdict

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file
from mmwave.errors import UserError
from mmwave.models.backbones.activemlp import ARCHS
from tests import parity
from tests.contracts import ROOT

from .ours import logits_of, model_of, recognised
from .published import activemlp

GOLDEN = json.loads((ROOT / 'tests' / 'data' / 'activemlp-formats.json').read_text())['deit']
TINY = GOLDEN['arch']


def training_file(path):
    """A checkpoint as the release saves it, whose raw weights are other ones than the averaged."""
    shapes = activemlp(**TINY)
    raw = {
        name: parity.weight(f'{name}/model' if len(shape) > 1 else name, shape)
        for name, shape in shapes.items()
    }
    checkpoint = {'model': raw, 'model_ema': parity.state_dict(shapes.items())}
    rest = {'optimizer': {}, 'lr_scheduler': {}, 'scaler': {}, 'acc_max': 80.0, 'epoch': 299}
    torch.save({**checkpoint, **rest, 'args': argparse.Namespace(model='ActiveMLP')}, path)


def segmentor_file(path, **more):
    """A segmentor as the release's runner saves it."""
    shapes = {f'backbone.{name}': s for name, s in activemlp(**TINY, classes=None).items()}
    heads = {'decode_head.conv_seg.weight': (16, 8, 1, 1), 'auxiliary_head.conv_seg.bias': (16,)}
    state = parity.state_dict((shapes | heads).items()) | more
    torch.save({'meta': {}, 'state_dict': state, 'optimizer': {}, 'amp': {}}, path)


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(
    ('ema', 'key'), [(None, 'logits'), (True, 'logits'), (False, 'logits_model')]
)
def test_converted_model_computes_what_the_published_one_does(tmp_path, ema, key, suffix):
    training_file(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / f'converted{suffix}', ema=ema)
    assert report.meta['weights'] == ('model' if ema is False else 'ema')
    converted = read_checkpoint(tmp_path / f'converted{suffix}')
    wanted = torch.tensor(GOLDEN[key], dtype=torch.float64)
    got = logits_of(converted, parity.image(GOLDEN['input']))
    assert (got - wanted).abs().max() <= 1e-12 * wanted.abs().max()


def test_metadata(tmp_path):
    training_file(tmp_path / 'a')
    report = convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    assert report.meta['origin'] == 'microsoft/TokenMixers Active Token Mixer'
    assert (report.meta['family'], report.meta['licence']) == ('activemlp', 'MIT')
    assert report.notes == ("used the averaged weights (EMA), entry 'model_ema'",)
    assert report.dropped == report.filled == {}
    arch = {key: TINY[key] for key in ('depths', 'dims', 'mlp_ratios')}  # others are the default
    assert report.backbone == {'type': 'mmwave.ActiveMLP', 'arch': arch, 'out_indices': [3]}


def test_segmentors_carry_their_output_norms(tmp_path):
    segmentor_file(tmp_path / 'a')
    report = convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    assert report.meta['origin'] == 'microsoft/TokenMixers Active Token Mixer/segmentation'
    ((reason, names),) = report.dropped.items()
    assert 'segmentor' in reason
    assert names == ['decode_head.conv_seg.weight', 'auxiliary_head.conv_seg.bias']
    assert report.out_indices == (0, 1, 2, 3)
    converted = read_checkpoint(tmp_path / 'b.pth')
    assert all(name.startswith('backbone.') for name in converted['state_dict'])
    model = model_of(converted)
    for stage, dim in enumerate(TINY['dims']):
        published = parity.weight(f'backbone.norm_{stage}.weight', (dim,))
        assert torch.equal(model.out_norms[str(stage)].weight, published.double())
    segmentor_file(tmp_path / 'a', extra=torch.ones(1))
    with pytest.raises(UserError, match='no rule for extra'):
        convert_file(tmp_path / 'a', tmp_path / 'b.pth')


@pytest.mark.parametrize('name', ARCHS)
@pytest.mark.parametrize(('classes', 'levels'), [(1000, (3,)), (None, (0, 1, 2, 3))])
def test_every_arch_is_recognised_and_filled(name, classes, levels):
    shapes = activemlp(**asdict(ARCHS[name]), classes=classes)
    _, target = recognised(shapes)
    assert target.arch == name
    assert target.backbone == {'type': 'mmwave.ActiveMLP', 'arch': name}
    for i in range(4):
        assert (f'backbone.out_norms.{i}.weight' in target.expected) == (i in levels)
    assert target.expected.get('head.fc.bias') == (classes and (classes,))
    flat = {n for n, shape in target.expected.items() if len(shape) == 2}
    assert flat == ({'head.fc.weight'} if classes else set())


@pytest.mark.parametrize(
    ('depths', 'interval', 'wanted'),
    [((2, 3, 6, 2), 3, 3), ((2, 2, 6, 2), 1, 1), ((2, 2, 4, 2), 3, 3), ((2, 2, 4, 2), 9, 3)],
)
def test_recognises_shares_intervals_and_image_channels(depths, interval, wanted):
    sizes = dict(TINY, depths=depths, shares=(1, 3, 8, 2), interval=interval)
    family, target = recognised(activemlp(**sizes, channels=5))
    assert family == 'activemlp'
    assert target.backbone['in_channels'] == 5
    assert (target.sizes.shares, target.sizes.interval) == ((1, 3, 8, 2), wanted)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('blocks.2.0.mlp.fc1.weight'), r'no ActiveMLP: blocks\.2\.0.* is missing'),
        (
            lambda s: s.update({'blocks.0.0.mlp.fc1.weight': (33, 8)}),
            'hidden channels of stage 0: 33 is no multiple of 8',
        ),
        (
            lambda s: s.update({'blocks.1.0.offset_layer.1.weight': (7, 12)}),
            'offsets of stage 1, two a channel: 24 is no multiple of 7',
        ),
        (
            lambda s: s.update({'blocks.2.3.offset_layer.1.weight': (8, 16)}),
            r'backbone\.stages\.2\.3\.offsets\.proj\.weight is not in the target',
        ),
        (
            lambda s: s.pop('blocks.0.1.downsample.proj.bias'),
            r'backbone\.downsamples\.0\.conv\.bias is not filled',
        ),
    ],
)
def test_shapes_of_no_activemlp(change, message):
    shapes = activemlp(**TINY)
    change(shapes)
    with pytest.raises(UserError, match=message):
        recognised(shapes)
