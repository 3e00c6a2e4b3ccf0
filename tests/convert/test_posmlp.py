"""PosMLP's published files become the models that mmwave builds."""

import argparse
import json
from dataclasses import asdict

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file
from mmwave.errors import UserError
from mmwave.models.backbones.posmlp import ARCHS
from tests import parity
from tests.contracts import ROOT

from .ours import logits_of, model_of, recognised

GOLDENS = json.loads((ROOT / 'tests' / 'data' / 'posmlp-goldens.json').read_text())
CLASSES = 16
TINY = {
    'depths': (1, 2, 1, 1),
    'dims': (4, 8, 16, 32),
    'mlp_ratios': (4, 2, 2, 2),
    'windows': (4, 4, 4, 2),
    'groups': (2, 4, 4, 8),
}


def published(arch, *, channels=3, classes=CLASSES):
    """Names and shapes of the release, its tables of offsets left out."""
    found, dims = {}, arch['dims']
    sides = [w if isinstance(w, int) else w[0] for w in arch['windows']]

    def weights(name, *shape):
        found.update({f'{name}.weight': shape, f'{name}.bias': shape[:1]})

    widths = (channels, dims[0] // 2, dims[0], dims[0])
    for i, side in enumerate((3, 3, 1)):
        weights(f'patch_embed.projs.{i}', widths[i + 1], widths[i], side, side)
    for i in range(3):
        weights(f'patch_embed.norms.{i}', widths[i + 1])
        for leaf in ('running_mean', 'running_var'):
            found[f'patch_embed.norms.{i}.{leaf}'] = (widths[i + 1],)
        found[f'patch_embed.norms.{i}.num_batches_tracked'] = ()
    for i, dim in enumerate(dims):
        if i:
            weights(f'levels.{i}.pool.conv', dim, 1, 3, 3)
            weights(f'levels.{i}.pool.norm', dim)
        for j in range(arch['depths'][i]):
            block, groups = f'levels.{i}.encoder.{j}', arch['groups'][i]
            weights(f'{block}.norm', dim)
            weights(f'{block}.proj_c_e', arch['mlp_ratios'][i] * dim, dim)
            weights(f'{block}.proj_c_s', dim, arch['mlp_ratios'][i] * dim // 2)
            found[f'{block}.gate_unit.pos.attention_centers'] = (groups, 2)
            found[f'{block}.gate_unit.pos.attention_spreads'] = (groups, 2, 2)
            found[f'{block}.gate_unit.pos.token_proj_n_bias'] = (1, sides[i] ** 2, 1)
    weights('norm', dims[-1])
    if classes:
        weights('head', classes, dims[-1])
    return found


def tables(arch):
    """The tables of offsets, as a real file has them; their values do not matter."""
    return {
        f'levels.{i}.encoder.{j}.gate_unit.pos.rel_indices': torch.zeros(side**2, side**2, 5)
        for i, (depth, side) in enumerate(zip(arch['depths'], arch['windows'], strict=True))
        for j in range(depth)
    }


def test_converted_model_computes_what_the_published_one_does(tmp_path):
    golden = GOLDENS['posmlp-t-224x224']
    state = parity.state_dict(published(asdict(ARCHS['t'])).items())
    torch.save({'state_dict_ema': state, 'state_dict': {}}, tmp_path / 'a.pth.tar')
    report = convert_file(tmp_path / 'a.pth.tar', tmp_path / 'b.pth')
    assert report.meta['backbone'] == {'type': 'mmwave.PosMLP', 'arch': 't'}
    got = logits_of(read_checkpoint(tmp_path / 'b.pth'), parity.image(golden['input']))
    wanted = torch.tensor(golden['logits'], dtype=torch.float64)
    assert (got - wanted).abs().max() <= 1e-13 * wanted.abs().max()  # measured: 1e-15


@pytest.mark.parametrize(('ema', 'factor'), [(True, 1.0), (False, 1.01)])
def test_a_checkpoint_of_timm_s_saver(tmp_path, ema, factor):
    state = parity.state_dict(published(TINY).items())
    raw = {k: v if v.ndim == 0 else v * 1.01 for k, v in state.items()}
    offsets = tables(TINY)
    checkpoint = {'epoch': 3, 'state_dict': raw | offsets, 'state_dict_ema': state | offsets}
    torch.save({**checkpoint, 'args': argparse.Namespace(model='PosMLP')}, tmp_path / 'a.pth.tar')
    report = convert_file(tmp_path / 'a.pth.tar', tmp_path / 'b.pth', ema=ema)
    assert report.meta['weights'] == ('ema' if ema else 'model')
    assert (report.meta['family'], report.meta['origin']) == ('posmlp', 'Zhicaiwww/PosMLP')
    ((reason, names),) = report.dropped.items()
    assert reason == 'tables of offsets, which are computed'
    assert names == list(offsets)
    assert report.read == report.written + len(offsets)
    model = model_of(read_checkpoint(tmp_path / 'b.pth'), out_indices=(3,))
    gate = model.stages[1][1].gate
    for name, ours in (
        ('attention_centers', gate.centers),
        ('attention_spreads', gate.spreads),
        ('token_proj_n_bias', gate.bias),
    ):
        wanted = state[f'levels.1.encoder.1.gate_unit.pos.{name}'] * factor
        assert torch.equal(ours.flatten(), wanted.flatten().double())


@pytest.mark.parametrize('name', ARCHS)
@pytest.mark.parametrize('classes', [1000, None])
def test_every_arch_is_recognised_and_filled(name, classes):
    _, target = recognised(published(asdict(ARCHS[name]), classes=classes))
    assert target.arch == name
    assert target.backbone == {'type': 'mmwave.PosMLP', 'arch': name}
    assert target.expected.get('head.fc.bias') == (classes and (classes,))


def test_recognises_other_sizes_and_image_channels():
    _, target = recognised(published(TINY, channels=5))
    assert target.arch == 'custom'
    assert target.backbone['in_channels'] == 5
    assert target.backbone['arch'] == {k: list(v) for k, v in TINY.items()}
    defaults = {'mlp_ratios': (4, 4, 4, 2), 'windows': (14, 14, 14, 7), 'groups': (8, 16, 32, 64)}
    arch = {'depths': (1, 1, 1, 1), 'dims': (96, 192, 384, 768), **defaults}
    _, target = recognised(published(arch))
    assert target.backbone['arch'] == {'depths': [1, 1, 1, 1], 'dims': [96, 192, 384, 768]}


GATE = 'levels.2.encoder.0.gate_unit.pos'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'levels.3.encoder.0.proj_c_e.weight': None}, r'no PosMLP: levels\.3\.enc.* is missing'),
        (
            {'levels.1.encoder.0.proj_c_e.weight': (17, 8)},
            'stage 1: 17 is no multiple of 8',
        ),
        (
            {f'{GATE}.token_proj_n_bias': (1, 15, 1)},
            'stage 2: 15 positions are no square',
        ),
        (
            {f'{GATE}.attention_centers': (4,)},
            r'attention_centers .*\(4,\), expected 2 axes',
        ),
        (
            {'patch_embed.projs.0.weight': (2,)},
            r'projs\.0\.weight .*\(2,\), expected 4 axes',
        ),
    ],
)
def test_shapes_of_no_posmlp(change, message):
    shapes = {k: v for k, v in (published(TINY) | change).items() if v is not None}
    with pytest.raises(UserError, match=message):
        recognised(shapes)


def test_a_tensor_too_many_or_too_few_stops(tmp_path):
    state = parity.state_dict(published(TINY).items())
    del state['levels.1.pool.norm.bias']
    state['levels.1.encoder.0.gate_unit.pos.rel_pos_table'] = torch.zeros(49, 4)
    torch.save(state, tmp_path / 'a')
    with pytest.raises(ValueError, match='2 tensors do not fit') as caught:
        convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    assert 'no rule for levels.1.encoder.0.gate_unit.pos.rel_pos_table' in str(caught.value)
    assert 'backbone.downsamples.0.norm.bias is not filled' in str(caught.value)
