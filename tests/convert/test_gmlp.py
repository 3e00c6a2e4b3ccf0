"""gMLP's published files become the models that mmwave builds."""

import json
from dataclasses import asdict

import pytest
import torch
from mmengine import Config

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file
from mmwave.convert import gmlp as table
from mmwave.convert.target import target_of
from mmwave.errors import UserError
from mmwave.models.backbones.gmlp import ARCHS, GMLP
from mmwave.registry import MODELS
from tests import parity
from tests.contracts import ROOT, relative_error

from .ours import logits_of, model_of, recognised
from .published import gmlp, paddlevit, write_paddle

GOLDENS = json.loads((ROOT / 'tests' / 'data' / 'gmlp-formats.json').read_text())
TINY = {'depth': 2, 'dim': 24, 'grid': 4}
FORMATS = {'pytorch': lambda shapes: shapes, 'paddle': paddlevit}


def timm_file(path, **sizes):
    """timm's file of the tiny sizes; what is written."""
    state = parity.state_dict(gmlp(**{**TINY, **sizes}).items())
    torch.save(state, path)
    return state


def paddle_state():
    sizes = {size: GOLDENS['paddle'][size] for size in TINY}
    return parity.state_dict(paddlevit(gmlp(**sizes)).items())


# Measured 1.2e-14.
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_converted_model_computes_what_the_published_one_does(tmp_path, suffix):
    write_paddle(tmp_path / 'source', paddle_state())
    report = convert_file(tmp_path / 'source', tmp_path / f'converted{suffix}')
    assert report.read == report.written
    converted = read_checkpoint(tmp_path / f'converted{suffix}')
    wanted = torch.tensor(GOLDENS['paddle']['logits'], dtype=torch.float64)
    got = logits_of(converted, parity.image(GOLDENS['paddle']['input']))
    assert relative_error(got, wanted) <= 5e-14


def test_paddle_needs_its_own_epsilon(tmp_path):
    write_paddle(tmp_path / 'source', paddle_state())
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert report.backbone['gate_norm_eps'] == 1e-6
    converted = read_checkpoint(tmp_path / 'converted.pth')
    del converted['meta']['backbone']['gate_norm_eps']
    wanted = torch.tensor(GOLDENS['paddle']['logits'], dtype=torch.float64)
    got = logits_of(converted, parity.image(GOLDENS['paddle']['input']))
    assert relative_error(got, wanted) > 1e-6


def test_weights_are_not_loaded_into_a_backbone_of_another_epsilon(tmp_path):
    write_paddle(tmp_path / 'source', paddle_state())
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    path = str(tmp_path / 'converted.pth')
    arch = report.backbone['arch']
    GMLP(arch, out_indices=-1, gate_norm_eps=1e-6).load_pretrained(path)
    with pytest.raises(ValueError, match='gate_norm_eps=1e-06, this one has gate_norm_eps=1e-05'):
        GMLP(arch, out_indices=-1).load_pretrained(path)


def test_linear_weights_of_paddle_are_transposed(tmp_path):
    state = paddle_state()
    write_paddle(tmp_path / 'source', state)
    convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    converted = read_checkpoint(tmp_path / 'converted.pth')['state_dict']
    # Square, so that no shape would show it.
    published = state['mixer_layers.1.mlp_channels.gate.proj.weight']
    assert torch.equal(converted['backbone.stages.3.0.gate.proj.weight'], published.T)


def test_timm_files_and_their_metadata(tmp_path):
    state = timm_file(tmp_path / 'gmlp.pth', classes=7)
    report = convert_file(tmp_path / 'gmlp.pth', tmp_path / 'a.pth')
    assert {k: report.meta[k] for k in ('source', 'family', 'arch', 'framework', 'licence')} == {
        'source': 'gmlp.pth',
        'family': 'gmlp',
        'arch': 'custom',
        'framework': 'pytorch',
        'licence': 'Apache-2.0',
    }
    assert report.meta['origin'].startswith('huggingface/pytorch-image-models')
    arch = {'depths': [0, 1, 0, 1], 'dim': 24, 'grid': 4}
    assert report.meta['backbone'] == {'type': 'mmwave.GMLP', 'arch': arch}
    converted = read_checkpoint(tmp_path / 'a.pth')
    assert torch.equal(converted['state_dict']['head.fc.weight'], state['head.weight'])
    gate = model_of(converted, out_indices=-1).stages[1][0].gate
    assert gate.norm.eps == 1e-5
    with pytest.raises(ValueError, match='converted already'):
        convert_file(tmp_path / 'a.pth', tmp_path / 'b.pth')


@pytest.mark.parametrize('framework', FORMATS)
@pytest.mark.parametrize('name', ARCHS)
def test_every_arch_is_recognised_and_filled(name, framework):
    sizes = asdict(ARCHS[name])
    depth, (grid, _) = sum(sizes.pop('depths')), sizes.pop('grid')
    shapes = FORMATS[framework](gmlp(**sizes, depth=depth, grid=grid, classes=1000))
    family, target = recognised(shapes, framework)
    assert (family, target.arch) == ('gmlp', name)
    assert target.backbone == {'type': 'mmwave.GMLP', 'arch': name}


@pytest.mark.parametrize(
    ('sizes', 'arch'),
    [
        ({'depth': 1}, {'depths': [0, 0, 0, 1], 'dim': 24, 'grid': 4}),
        ({'depth': 5, 'classes': None}, {'depths': [1, 1, 1, 2], 'dim': 24, 'grid': 4}),
        (
            {'mlp_ratio': 2, 'patch_size': 7, 'grid': 1},
            {'depths': [0, 1, 0, 1], 'dim': 24, 'mlp_ratio': 2, 'patch_size': 7, 'grid': 1},
        ),
        ({'depth': 30, 'grid': 14}, {'depths': [7, 8, 7, 8], 'dim': 24}),
    ],
    ids=str,
)
def test_other_sizes(sizes, arch):
    _, target = recognised(gmlp(**{**TINY, **sizes}), 'pytorch')
    assert target.arch == 'custom'
    assert target.backbone == {'type': 'mmwave.GMLP', 'arch': arch}
    assert ('head.fc.weight' in target.expected) == ('classes' not in sizes)


def test_a_known_grid_is_used_instead_of_a_square():
    found = table.recognise(gmlp(**TINY))
    for grid, stated in (((2, 8), [2, 8]), ((4, 4), 4), (None, 4)):
        assert target_of(table.FAMILY, found, grid).backbone['arch']['grid'] == stated
    with pytest.raises(UserError, match='a grid of 3 x 5 has no 16 positions'):
        target_of(table.FAMILY, found, (3, 5))


@pytest.mark.parametrize('depth', [1, 2, 3, 4])
def test_the_config_builds_what_the_weights_are_for(tmp_path, depth, tool):
    timm_file(tmp_path / 'gmlp.pth', depth=depth)
    report = convert_file(tmp_path / 'gmlp.pth', tmp_path / 'a.pth')
    assert report.backbone['out_indices'] == [3]
    converted = read_checkpoint(tmp_path / 'a.pth')
    state = converted['state_dict'].items()
    own = {k.removeprefix('backbone.'): v for k, v in state if not k.startswith('head.')}
    MODELS.build(report.backbone).load_state_dict(own, strict=True)
    _, output, _ = tool('gmlp.pth', 'b.pth')
    printed = Config.fromstring(output.splitlines()[-1].strip(), '.py')
    assert printed.backbone == report.backbone


def test_the_file_does_not_state_the_stages_to_output(tmp_path):
    timm_file(tmp_path / 'gmlp.pth', depth=3)
    report = convert_file(tmp_path / 'gmlp.pth', tmp_path / 'a.pth')
    assert 'out_indices' not in report.meta['backbone']
    assert read_checkpoint(tmp_path / 'a.pth')['meta']['backbone'] == report.meta['backbone']
    dense = MODELS.build({**report.backbone, 'out_indices': (0, 2, 3)})
    dense.load_pretrained(str(tmp_path / 'a.pth'))


def test_image_channels():
    _, target = recognised(gmlp(**TINY, channels=5), 'pytorch')
    assert target.backbone['in_channels'] == 5
    assert target.expected['backbone.stem.conv.weight'] == (24, 5, 16, 16)


BLOCK = 'blocks.0.mlp_channels'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (
            {'stem.proj.weight': (24,)},
            r'gMLP: stem.proj.weight has shape \(24,\), .* 4 axes',
        ),
        ({'stem.proj.weight': (24, 3, 16, 8)}, 'patches of 16 x 8 pixels are no squares'),
        (
            {f'{BLOCK}.fc1.weight': (144,)},
            f'no gMLP: {BLOCK}.fc1.weight .*, expected 2 axes',
        ),
        ({f'{BLOCK}.fc1.weight': (145, 24)}, '145 hidden channels have no halves'),
        ({f'{BLOCK}.fc1.weight': (146, 24)}, 'hidden channels of a gMLP: 146 is no multiple of 24'),
        ({f'{BLOCK}.gate.proj.weight': (18, 18)}, '18 positions are no square'),
    ],
)
def test_shapes_of_no_gmlp(change, message):
    with pytest.raises(UserError, match=message):
        recognised(gmlp(**TINY) | change)


def test_tensors_too_many_or_too_few_are_listed(tmp_path):
    state = timm_file(tmp_path / 'a')
    del state['blocks.1.mlp_channels.gate.norm.bias'], state['norm.weight']
    state |= {'extra': torch.ones(1), 'blocks.0.mlp_channels.norm.weight': torch.ones(72)}
    state['blocks.1.mlp_channels.gate.proj.weight'] = torch.ones(9, 9)
    torch.save(state, tmp_path / 'a')
    with pytest.raises(ValueError, match='5 tensors do not fit') as caught:
        convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    for text in (
        'no rule for extra',
        'no rule for blocks.0.mlp_channels.norm.weight',
        'backbone.stages.3.0.gate.norm.bias is not filled',
        'backbone.out_norms.3.weight is not filled',
        'backbone.stages.3.0.gate.proj.weight has shape (9, 9), the target (16, 16)',
    ):
        assert text in str(caught.value)
    assert not (tmp_path / 'b.pth').exists()


def test_a_block_that_is_missing_is_no_smaller_model(tmp_path):
    state = timm_file(tmp_path / 'a', depth=5)
    torch.save({k: v for k, v in state.items() if not k.startswith('blocks.2.')}, tmp_path / 'a')
    with pytest.raises(ValueError, match=r'no rule for blocks\.4\.norm\.weight'):
        convert_file(tmp_path / 'a', tmp_path / 'b.pth')


def test_the_tool_reports_what_it_did(tmp_path, tool):
    write_paddle(tmp_path / 'gmlp.pdparams', paddle_state())
    code, output, errors = tool('gmlp.pdparams', 'b.pth')
    assert (code, errors) == (0, '')
    for text in (
        'read 26 tensors of gmlp.pdparams (paddle)',
        'recognised gmlp custom by the names of BR-IDL/PaddleViT image_classification/gMLP',
        "backbone=dict(type='mmwave.GMLP', arch={'depths': [0, 1, 0, 1], 'dim': 24, 'grid': 4}, "
        'gate_norm_eps=1e-06, out_indices=[3])',
    ):
        assert text in output
