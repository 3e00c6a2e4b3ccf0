"""MLP-Mixer's published files become the models that mmwave builds."""

import json
from dataclasses import asdict

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file
from mmwave.errors import UserError
from mmwave.models.backbones.mlp_mixer import ARCHS, MLPMixer
from mmwave.registry import MODELS
from tests import parity
from tests.contracts import ROOT, relative_error

from .ours import logits_of, model_of, recognised
from .published import flax, mlp_mixer, mmpretrain_mixer, paddlevit, write_npz, write_paddle

GOLDENS = json.loads((ROOT / 'tests' / 'data' / 'mlp-mixer-formats.json').read_text())
TINY = {'depth': 2, 'dim': 32, 'token_mlp_dim': 16, 'channel_mlp_dim': 128, 'grid': 4}
RELEASES = {
    'timm': lambda shapes: shapes,
    'mmpretrain': mmpretrain_mixer,
    'paddle': paddlevit,
    'jax': flax,
}
TANH = {'type': 'GELU', 'approximate': 'tanh'}


def golden_shapes(key):
    return RELEASES[key](mlp_mixer(**{size: GOLDENS[key][size] for size in TINY}))


def paddle_file(path):
    state = parity.state_dict(golden_shapes('paddle').items())
    write_paddle(path, state)
    return state


def jax_file(path):
    """Google's file, in the order of the names as JAX sorts them; scales are about one."""
    state = {
        name: parity.weight(f'{name}.weight' if name.endswith('scale') else name, shape)
        for name, shape in sorted(golden_shapes('jax').items())
    }
    write_npz(path, state)
    return state


# Measured 1.7e-15 and 9.6e-16.
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
@pytest.mark.parametrize(('key', 'write'), [('paddle', paddle_file), ('jax', jax_file)])
def test_converted_model_computes_what_the_published_one_does(tmp_path, key, write, suffix):
    write(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / f'converted{suffix}')
    assert report.read == report.written
    assert report.meta['framework'] == key
    converted = read_checkpoint(tmp_path / f'converted{suffix}')
    wanted = torch.tensor(GOLDENS[key]['logits'], dtype=torch.float64)
    got = logits_of(converted, parity.image(GOLDENS[key]['input']))
    assert relative_error(got, wanted) <= 1e-14


def test_jax_needs_its_own_gelu(tmp_path):
    jax_file(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert report.backbone['act_cfg'] == TANH
    path = tmp_path / 'converted.pth'
    with pytest.raises(ValueError, match=r'of a backbone with act_cfg=.*tanh'):
        MLPMixer(report.backbone['arch'], out_indices=-1).load_pretrained(str(path))
    converted = read_checkpoint(path)
    del converted['meta']['backbone']['act_cfg']
    tanh, erf = (
        torch.tensor(GOLDENS['jax'][k], dtype=torch.float64) for k in ('logits', 'logits_erf')
    )
    got = logits_of(converted, parity.image(GOLDENS['jax']['input']))
    assert relative_error(got, tanh) > 1e-4
    assert relative_error(got, erf) <= 1e-14


def test_layouts_of_paddle_and_flax(tmp_path):
    for write, name in (
        (paddle_file, 'mixer_layers.0.mlp_tokens.fc1.weight'),
        (jax_file, 'MixerBlock_0/token_mixing/Dense_0/kernel'),
    ):
        published = write(tmp_path / 'source')
        convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
        converted = read_checkpoint(tmp_path / 'converted.pth')['state_dict']
        assert torch.equal(converted['backbone.stages.1.0.token_mlp.fc1.weight'], published[name].T)
    stem = published['stem/kernel']
    assert torch.equal(converted['backbone.stem.conv.weight'][5, 2], stem[:, :, 2, 5])


@pytest.fixture
def mmpretrain_file(tmp_path):
    """mmpretrain's own model, and what its file is converted to."""
    backbones = pytest.importorskip('mmpretrain.models.backbones')
    torch.manual_seed(0)
    sizes = dict(embed_dims=24, num_layers=2, tokens_mlp_dims=10, channels_mlp_dims=40)
    theirs = backbones.MlpMixer(sizes, img_size=64)
    theirs.eval()  # returns nothing
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    theirs.double()
    state = {f'backbone.{name}': tensor for name, tensor in theirs.state_dict().items()}
    state |= {'head.fc.weight': torch.ones(5, 24), 'head.fc.bias': torch.zeros(5)}
    torch.save({'meta': {'mmpretrain_version': '1'}, 'state_dict': state}, tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert report.meta['origin'] == 'open-mmlab/mmpretrain configs/mlp_mixer'
    return theirs, tmp_path / 'converted.pth'


# What norms add to variances is seen best where these are small, as of faint images. Measured
# 5.7e-16, and 2.7e-5 with the other epsilon.
def test_mmpretrain_computes_the_same(mmpretrain_file):
    theirs, path = mmpretrain_file
    x = 1e-2 * parity.image((2, 3, 64, 64)).double()
    converted = read_checkpoint(path)
    with torch.no_grad():
        (got,), (wanted,) = model_of(converted, out_indices=-1)(x), theirs(x)
        (other,) = model_of(converted, out_indices=-1, norm_eps=1e-6)(x)
    assert relative_error(got.flatten(2), wanted) <= 1e-14
    assert relative_error(other.flatten(2), wanted) > 1e-6
    assert torch.equal(converted['state_dict']['head.fc.weight'], torch.ones(5, 24))


def test_mmpretrain_has_its_own_epsilon(mmpretrain_file):
    _, path = mmpretrain_file
    noted = read_checkpoint(path)['meta']['backbone']
    assert noted['norm_eps'] == 1e-5
    MLPMixer(noted['arch'], out_indices=-1, norm_eps=1e-5).load_pretrained(str(path))
    with pytest.raises(ValueError, match='norm_eps=1e-05, this one has norm_eps=1e-06'):
        MLPMixer(noted['arch'], out_indices=-1).load_pretrained(str(path))


def test_files_without_an_epsilon_have_the_default(tmp_path):
    paddle_file(tmp_path / 'source')
    report = convert_file(tmp_path / 'source', tmp_path / 'converted.pth')
    assert 'norm_eps' not in report.backbone
    MODELS.build(report.backbone).load_pretrained(str(tmp_path / 'converted.pth'))
    other = MODELS.build({**report.backbone, 'norm_eps': 1e-5})
    with pytest.raises(ValueError, match='norm_eps=1e-06, this one has norm_eps=1e-05'):
        other.load_pretrained(str(tmp_path / 'converted.pth'))


@pytest.mark.parametrize('eps', [0.0, -1e-6, float('nan')])
def test_epsilons_are_positive(eps):
    with pytest.raises(ValueError, match=f'norm_eps={eps} must be positive'):
        MLPMixer('s16', norm_eps=eps)


@pytest.mark.parametrize('release', RELEASES)
@pytest.mark.parametrize(('name', 'classes'), [('s16', 1000), ('b16', 21843), ('l16', 1000)])
def test_every_arch_is_recognised_and_filled(name, classes, release):
    sizes = asdict(ARCHS[name])
    depth, (grid, _) = sum(sizes.pop('depths')), sizes.pop('grid')
    shapes = RELEASES[release](mlp_mixer(**sizes, depth=depth, grid=grid, classes=classes))
    framework = release if release in ('paddle', 'jax') else 'pytorch'
    family, target = recognised(shapes, framework)
    assert (family, target.arch) == ('mlp_mixer', name)
    assert target.backbone == {'type': 'mmwave.MLPMixer', 'arch': name}
    assert target.expected['head.fc.bias'] == (classes,)


@pytest.mark.parametrize('release', RELEASES)
def test_other_sizes(release):
    sizes = {**TINY, 'depth': 11, 'token_mlp_dim': 5, 'patch_size': 32, 'grid': 7}
    shapes = RELEASES[release](mlp_mixer(**sizes, channels=1, classes=None))
    _, target = recognised(shapes, release if release in ('paddle', 'jax') else 'pytorch')
    arch = {k: v for k, v in sizes.items() if k != 'depth'} | {'depths': [2, 3, 3, 3]}
    assert target.backbone == {'type': 'mmwave.MLPMixer', 'arch': arch, 'in_channels': 1}
    assert 'head.fc.weight' not in target.expected


TOKENS, CHANNELS = 'blocks.0.mlp_tokens', 'blocks.0.mlp_channels'


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'stem.proj.weight': ()}, 'no MLP-Mixer: stem.proj.weight'),
        ({f'{TOKENS}.fc1.weight': (16, 8)}, '8 positions are no square'),
        (
            {f'{TOKENS}.fc2.weight': (16,)},
            f'MLP-Mixer: {TOKENS}.fc2.weight .* 2 axes',
        ),
        ({f'{TOKENS}.fc2.weight': (16, 8)}, rf'no known family: {TOKENS}.fc2 reads half .* gMixer'),
        ({f'{CHANNELS}.fc2.weight': (32, 64)}, rf'{CHANNELS}.fc2 reads half of the 128 channels'),
    ],
)
def test_shapes_of_no_mixer(change, message):
    with pytest.raises(UserError, match=message):
        recognised(mlp_mixer(**TINY) | change)


@pytest.mark.parametrize('release', ['jax', 'mmpretrain'])
def test_tensors_too_many_or_too_few_are_listed(tmp_path, release):
    names = RELEASES[release](mlp_mixer(**TINY))
    state = {name: torch.ones(shape) for name, shape in names.items()}
    last = list(names)[-4:-2]  # of the norm after the blocks
    for name in last:
        del state[name]
    state['extra'] = torch.ones(1)
    if release == 'jax':
        write_npz(tmp_path / 'a', state)
    else:
        torch.save(state, tmp_path / 'a')
    with pytest.raises(ValueError, match='3 tensors do not fit') as caught:
        convert_file(tmp_path / 'a', tmp_path / 'b.pth')
    for text in (
        'no rule for extra',
        'backbone.out_norms.3.weight is not filled',
        'backbone.out_norms.3.bias is not filled',
    ):
        assert text in str(caught.value)


def test_the_tool_reads_npz_and_names_it_in_its_help(tmp_path, tool):
    jax_file(tmp_path / 'Mixer-tiny.npz')
    code, output, errors = tool('Mixer-tiny.npz', 'b.pth')
    assert (code, errors) == (0, '')
    for text in (
        'read 30 tensors of Mixer-tiny.npz (jax)',
        'recognised mlp_mixer custom by the names of google-research/vision_transformer',
        "act_cfg={'type': 'GELU', 'approximate': 'tanh'}",
    ):
        assert text in output
    code, text, _ = tool('--help')
    assert code == 0
    assert '.npz' in text
    assert '.pdparams' in text
