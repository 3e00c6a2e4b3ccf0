"""CycleMLP's published files become the models that mmwave builds."""

import argparse
import json
from dataclasses import asdict

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file, families, identify, published_names
from mmwave.errors import UserError
from mmwave.models.backbones.cyclemlp import ARCHS
from tests import parity
from tests.contracts import ROOT, relative_error

from .ours import converted, logits_of, model_of, recognised
from .published import TINY, cyclemlp, write_paddle

GOLDENS = json.loads((ROOT / 'tests' / 'data' / 'cyclemlp-formats.json').read_text())


def sizes_of(key):
    return {name: GOLDENS[key][name] for name in ('depths', 'dims', 'mlp_ratios')}


def with_offsets(state):
    """The state dict with each Cycle FC's table of (dy, dx), as the release states the formula."""
    state = dict(state)
    for name in [n for n in state if '.sfc_' in n and n.endswith('.weight')]:
        channels, along = state[name].shape[1], 1 if '.sfc_h.' in name else 0
        table = torch.zeros(1, 2 * channels, 1, 1)
        for i in range(channels):
            table[0, 2 * i + along] = (i + 1) % 3 - 1
        state[name.replace('weight', 'offset')] = table
    return state


def deit_file(path):
    """A checkpoint as the release's main.py writes it, which uses DeiT's layout."""
    shapes = cyclemlp(**sizes_of('deit')).items()
    raw = parity.state_dict(shapes)
    averaged = {
        name: parity.weight(f'{name}/ema', shape) if len(shape) > 1 else raw[name]
        for name, shape in shapes
    }
    checkpoint = {'model': with_offsets(raw), 'optimizer': {}, 'lr_scheduler': {}, 'epoch': 299}
    checkpoint |= {'model_ema': with_offsets(averaged), 'scaler': {}}
    torch.save({**checkpoint, 'args': argparse.Namespace(model='CycleMLP_B1')}, path)


def paddle_shapes(shapes):
    """PaddleViT's: matrices are transposed."""
    return {name: shape[::-1] if len(shape) == 2 else shape for name, shape in shapes.items()}


def paddle_file(path):
    state = parity.state_dict(paddle_shapes(cyclemlp(**sizes_of('paddle'))).items())
    write_paddle(path, with_offsets(state))


# Of the deit file the raw weights are published: its golden is theirs.
@pytest.mark.parametrize(
    ('key', 'write', 'ema', 'logits', 'weights'),
    [
        ('deit', deit_file, None, 'logits', 'model'),
        ('deit', deit_file, True, 'logits_ema', 'ema'),
        ('paddle', paddle_file, None, 'logits', 'model'),
    ],
)
def test_converted_model_computes_what_the_published_one_does(
    tmp_path, key, write, ema, logits, weights
):
    write(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth', ema=ema)
    assert report.meta['weights'] == weights
    golden = GOLDENS[key]
    got = logits_of(read_checkpoint(tmp_path / 'converted.pth'), parity.image(golden['input']))
    assert relative_error(got, torch.tensor(golden[logits], dtype=torch.float64)) < 1e-12


@pytest.mark.parametrize('framework', ['pytorch', 'paddle'])
@pytest.mark.parametrize('name', ARCHS)
@pytest.mark.parametrize(('classes', 'levels'), [(1000, (3,)), (None, (0, 1, 2, 3))])
def test_every_arch_is_recognised_and_filled(name, classes, levels, framework):
    shapes = cyclemlp(**asdict(ARCHS[name]), classes=classes)
    shapes = paddle_shapes(shapes) if framework == 'paddle' else shapes
    family, target = recognised(shapes, framework)
    assert (family, target.arch) == ('cyclemlp', name)
    assert target.backbone == {'type': 'mmwave.CycleMLP', 'arch': name}
    for i in range(4):
        assert (f'backbone.out_norms.{i}.weight' in target.expected) == (i in levels)
    assert target.expected.get('head.fc.bias') == (classes and (classes,))


def test_recognises_other_sizes_and_image_channels():
    _, target = recognised(
        cyclemlp(depths=(1, 2, 1, 1), dims=(8,) * 4, mlp_ratios=(2, 3, 4, 1), channels=5)
    )
    assert target.backbone == {
        'type': 'mmwave.CycleMLP',
        'arch': {'depths': [1, 2, 1, 1], 'dims': [8] * 4, 'mlp_ratios': [2, 3, 4, 1]},
        'in_channels': 5,
    }


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda s: s.pop('network.4.0.mlp.fc1.weight'), r'no CycleMLP: network\.4\.0.* is missing'),
        (
            lambda s: s.update({'network.0.0.mlp.fc1.weight': (33, 8)}),
            'stage 0: 33 is no multiple of 8',
        ),
        (
            lambda s: s.update({'network.2.0.mlp.fc1.weight': (48, 12, 1, 1)}),
            r'network\.2\.0\.mlp\.fc1\.weight .* expected 2 axes',
        ),
    ],
)
def test_shapes_of_no_cyclemlp(change, message):
    shapes = cyclemlp(**TINY)
    change(shapes)
    with pytest.raises(UserError, match=message):
        recognised(shapes)


@pytest.mark.parametrize(('without', 'levels'), [((), (0, 1, 2, 3)), (('norm0.',), (1, 2, 3))])
def test_dense_files_carry_their_output_norms(tmp_path, without, levels):
    state = with_offsets(parity.state_dict(cyclemlp(**TINY, classes=None).items()))
    torch.save({k: v for k, v in state.items() if not k.startswith(without)}, tmp_path / 'a')
    report = convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    assert report.out_indices == levels
    model = model_of(read_checkpoint(tmp_path / 'b.pth'), out_indices=levels)
    for level in levels:
        published = parity.weight(f'norm{2 * level}.weight', (TINY['dims'][level],))
        assert torch.equal(model.out_norms[str(level)].weight, published.double())


def test_tables_of_offsets_are_dropped_with_a_reason():
    state = with_offsets(parity.state_dict(cyclemlp(**TINY).items()))
    _, applied = converted({k: v.half() if k.endswith('.offset') else v for k, v in state.items()})
    ((reason, names),) = applied.dropped.items()
    assert reason == 'tables of offsets, which are computed'
    assert names == [name for name in state if name.endswith('.offset')]


def _other_value(table):
    table[0, -1] = 2


def _other_axis(table):
    table.copy_(table.view(-1, 2).flip(1).reshape(table.shape))


@pytest.mark.parametrize('change', [_other_value, _other_axis, lambda t: t.fill_(float('nan'))])
@pytest.mark.parametrize('axis', 'hw')
def test_other_offsets_are_refused(change, axis):
    state = with_offsets(parity.state_dict(cyclemlp(**TINY).items()))
    name = f'network.2.0.attn.sfc_{axis}.offset'
    change(state[name])
    with pytest.raises(UserError, match='1 tensors do not fit') as caught:
        converted(state)
    assert f'{name} has other values than our model computes' in str(caught.value)
    state[name] = torch.zeros(1)
    with pytest.raises(UserError, match=rf'{name} has other'):
        converted(state)


def test_cycle_fcs_are_called_by_the_axis_that_they_read_along():
    with torch.device('meta'):
        names = published_names({n: torch.empty(s) for n, s in cyclemlp(**TINY).items()})
    assert names['backbone.stages.0.0.mixer.width.weight'] == 'network.0.0.attn.sfc_h.weight'
    assert names['backbone.stages.3.0.mixer.height.bias'] == 'network.6.0.attn.sfc_w.bias'


def test_a_tensor_too_many_or_too_few_stops():
    state = parity.state_dict(cyclemlp(**TINY).items())
    del state['network.2.0.norm1.bias']
    with pytest.raises(UserError, match='2 tensors do not fit') as caught:
        converted({**state, 'extra': torch.ones(1)})
    assert 'no rule for extra' in str(caught.value)
    assert 'backbone.stages.1.0.norm1.bias is not filled' in str(caught.value)


def test_is_distinguished_from_other_families():
    names = list(cyclemlp(**TINY))
    for framework in ('pytorch', 'paddle'):
        family, release = identify(names, framework)
        assert (family.name, release.framework) == ('cyclemlp', framework)
    others = [family for family in families() if family.name != 'cyclemlp']
    with pytest.raises(UserError, match='of no known family'):
        identify(names, 'pytorch', others)


def test_a_detector_becomes_its_backbone(tmp_path):
    published = with_offsets(parity.state_dict(cyclemlp(**sizes_of('deit'), classes=None).items()))
    state = {f'backbone.{name}': tensor for name, tensor in published.items()}
    state['neck.fpn_convs.0.conv.bias'] = torch.ones(3)
    torch.save({'meta': {}, 'state_dict': state}, tmp_path / 'a')
    report = convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    assert ['neck.fpn_convs.0.conv.bias'] in report.dropped.values()
    assert report.out_indices == (0, 1, 2, 3)
    model = model_of(read_checkpoint(tmp_path / 'b.pth'))
    weight = published['network.2.0.attn.sfc_h.weight'].double()
    assert torch.equal(model.stages[1][0].mixer.width.weight, weight)
