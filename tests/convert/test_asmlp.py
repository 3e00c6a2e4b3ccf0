"""AS-MLP's published files become the models that mmwave builds."""

import json
import sys
import types
from dataclasses import asdict

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file, convert_model
from mmwave.errors import UserError
from mmwave.models.backbones.asmlp import ARCHS
from tests import parity
from tests.contracts import ROOT

from .ours import logits_of, model_of, recognised
from .published import ASMLP_TINY, asmlp

GOLDEN = json.loads((ROOT / 'tests' / 'data' / 'asmlp-formats.json').read_text())['swin']
HEADS = {
    'neck.lateral_convs.0.conv.weight': (16, 8, 1, 1),
    'rpn_head.rpn_conv.weight': (16, 16, 3, 3),
    'roi_head.bbox_head.0.fc_cls.bias': (81,),
    'decode_head.conv_seg.weight': (150, 8, 1, 1),
    'auxiliary_head.conv_seg.weight': (150, 8, 1, 1),
}


@pytest.fixture
def yacs(monkeypatch):
    """A class that pickles under the name of yacs' configs, a dict with attributes of its own."""

    class CfgNode(dict):
        def __init__(self, items):
            super().__init__(
                {k: CfgNode(v) if isinstance(v, dict) else v for k, v in items.items()}
            )
            self.__dict__['__immutable__'] = True

    CfgNode.__module__, CfgNode.__qualname__ = 'yacs.config', 'CfgNode'
    package, module = types.ModuleType('yacs'), types.ModuleType('yacs.config')
    module.CfgNode = CfgNode
    monkeypatch.setitem(sys.modules, 'yacs', package)
    monkeypatch.setitem(sys.modules, 'yacs.config', module)
    return CfgNode


def config(shift_size):
    return {'MODEL': {'TYPE': 'as_mlp', 'ASMLP': {'SHIFT_SIZE': shift_size}}, 'AMP_OPT_LEVEL': 'O1'}


def state(**sizes):
    return parity.state_dict(asmlp(**{**ASMLP_TINY, **sizes}).items())


def swin_file(path, settings):
    """A checkpoint as the release's training script, Swin's, writes it."""
    checkpoint = {
        'model': state(),
        'optimizer': {'state': {0: {'exp_avg': torch.zeros(8)}}, 'param_groups': []},
        'lr_scheduler': {'last_epoch': 3},
        'max_accuracy': 81.3,
        'epoch': 299,
    }
    torch.save({**checkpoint, 'config': settings, 'amp': {}}, path)


def dense_file(path, **meta):
    """A detector's, or a segmentor's, as OpenMMLab wrote it: what they have besides is the same."""
    tensors = {f'backbone.{k}': v for k, v in state(classes=None).items()}
    torch.save({'meta': meta, 'state_dict': tensors | parity.state_dict(HEADS.items())}, path)


def test_converted_model_computes_what_the_published_one_does(tmp_path, yacs):
    swin_file(tmp_path / 'source', yacs(config(5)))
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert report.notes == ()
    arch = {'depths': [1] * 4, 'dims': GOLDEN['dims'], 'mlp_ratio': GOLDEN['mlp_ratio']}
    assert report.meta['backbone'] == {'type': 'mmwave.ASMLP', 'arch': arch}
    assert report.out_indices == (3,)
    wanted = torch.tensor(GOLDEN['logits'], dtype=torch.float64)
    got = logits_of(read_checkpoint(tmp_path / 'converted.pth'), parity.image(GOLDEN['input']))
    assert (got - wanted).abs().max() <= 1e-12 * wanted.abs().max()


def test_the_shift_size_is_the_config_s(tmp_path, yacs):
    swin_file(tmp_path / 'source', yacs(config(3)))
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert report.backbone['shift_size'] == 3
    converted = read_checkpoint(tmp_path / 'converted.pth')
    assert converted['meta']['backbone']['shift_size'] == 3
    assert model_of(converted, out_indices=3).stages[0][0].mixer.offsets[0] == 1


@pytest.mark.parametrize(
    ('settings', 'sizes'),
    [
        (None, {}),
        ({}, {}),
        ({'MODEL': 7}, {}),
        ({'MODEL': {'ASMLP': {'SHIFT_SIZE': None}}}, {}),
    ],
)
def test_nothing_states_the_shift_size(tmp_path, settings, sizes):
    swin_file(tmp_path / 'source', settings)
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert 'shift_size' not in report.backbone
    (note,) = report.notes
    assert note == 'nothing in it states the shift size, assumed 5 as in all classifiers'


@pytest.mark.parametrize('size', [0, 4, -3, 101, '5', 5.0, True])
def test_a_stated_shift_size_that_no_model_has(tmp_path, size):
    swin_file(tmp_path / 'source', config(size))
    with pytest.raises(UserError, match=f'states a shift size of .?{size}.?: expected an odd'):
        convert_file(tmp_path / 'source', tmp_path / 'converted.pth')


@pytest.mark.parametrize(
    ('text', 'size', 'notes'),
    [
        ("model = dict(\n    backbone=dict(\n        type='ASMLP', shift_size=3,", 3, 0),
        ('shift_size=5, patch_size=4', 5, 0),
        ("{'type': 'ASMLP', 'shift_size': 3}", 3, 0),
        ('# shift_size=3\nshift_size=5', 5, 0),
        ('shift_size=5)\nother = dict(shift_size=3)', 5, 1),
        ('no word of it', 5, 1),
        (None, 5, 1),
    ],
)
@pytest.mark.parametrize('key', ['config', 'cfg'])
def test_detectors_and_segmentors(tmp_path, key, text, size, notes):
    dense_file(tmp_path / 'source', **({key: text} if text else {}), epoch=12)
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert report.backbone.get('shift_size', 5) == size
    assert len(report.notes) == notes
    assert any('it states the shift sizes [3, 5]' in note for note in report.notes) == (
        'other' in (text or '')
    )
    ((reason, names),) = report.dropped.items()
    assert 'detector or segmentor' in reason
    assert names == list(HEADS)
    assert report.read == report.written + len(HEADS)
    assert report.out_indices == (0, 1, 2, 3)
    assert report.meta['licence'] == 'Apache-2.0'
    converted = read_checkpoint(tmp_path / 'converted.pth')
    model = model_of(converted)
    for level, dim in enumerate(GOLDEN['dims']):
        published = parity.weight(f'norm{level}.weight', (dim,))
        assert torch.equal(model.out_norms[str(level)].weight, published.double())


def test_a_model_in_memory(tmp_path):
    class Published(torch.nn.Module):
        def state_dict(self, *args, **kwargs):
            return state()

    converted = convert_model(Published())
    assert converted.backbone['out_indices'] == [3]
    assert converted.report.notes[1].startswith('nothing in it states the shift size')


@pytest.mark.parametrize('name', ARCHS)
@pytest.mark.parametrize(('classes', 'levels'), [(1000, (3,)), (None, (0, 1, 2, 3))])
def test_every_arch_is_recognised_and_filled(name, classes, levels):
    _, target = recognised(asmlp(**asdict(ARCHS[name]), classes=classes))
    assert target.arch == name
    assert target.backbone == {'type': 'mmwave.ASMLP', 'arch': name}
    for i in range(4):
        assert (f'backbone.out_norms.{i}.weight' in target.expected) == (i in levels)
    assert target.expected.get('head.fc.bias') == (classes and (classes,))


def test_recognises_other_image_channels():
    shapes = asmlp(**ASMLP_TINY)
    shapes['patch_embed.proj.weight'] = (8, 5, 4, 4)
    assert recognised(shapes)[1].backbone['in_channels'] == 5


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            lambda s: s.pop('layers.2.blocks.0.mlp.fc1.weight'),
            r'no AS-MLP: layers\.2\.blocks\.0.* is missing',
        ),
        (
            lambda s: s.update({'layers.0.blocks.0.mlp.fc1.weight': (17, 8, 1, 1)}),
            'stage 0: 17 is no multiple of 8',
        ),
        (
            lambda s: s.update({'layers.0.blocks.0.mlp.fc1.weight': (24, 8, 1, 1)}),
            r'stages with mlp_ratio \(3, 2, 2, 2\): expected one',
        ),
        (
            lambda s: s.update({'patch_embed.proj.weight': (8,)}),
            r'proj\.weight .*\(8,\), expected 4',
        ),
    ],
)
def test_shapes_of_no_asmlp(change, message):
    shapes = asmlp(**ASMLP_TINY)
    change(shapes)
    with pytest.raises(UserError, match=message):
        recognised(shapes)
