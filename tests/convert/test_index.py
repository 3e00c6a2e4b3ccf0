"""A file's family and release are identified by its tensor names."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from mmwave import convert
from mmwave.convert import families, identify

from .published import (
    REPMLPNET_TINY,
    TINY,
    deit,
    flax,
    gmlp,
    mindcv_name,
    mindspore_names,
    mlp_mixer,
    mmpretrain_mixer,
    mmpretrain_name,
    paddle_names,
    paddlevit,
    repmlpnet,
    resmlp,
    vip,
    wavemlp,
)

WAVE = list(wavemlp(**TINY))
REP, REP_DEPLOY = (list(repmlpnet(**REPMLPNET_TINY, deploy=deploy)) for deploy in (False, True))
GMLP, RESMLP = (make(depth=2, dim=8, grid=2) for make in (gmlp, resmlp))
MIXER = mlp_mixer(depth=2, dim=8, token_mlp_dim=4, channel_mlp_dim=32, grid=2)
VIP = vip(depths=(1, 1, 1, 1), dims=(8, 8, 8, 8), patch_size=56, grids=(4, 4, 4, 4))
TIMM = 'huggingface/pytorch-image-models timm/models/mlp_mixer.py'
PADDLEVIT = 'BR-IDL/PaddleViT image_classification'


@pytest.mark.parametrize(
    ('names', 'framework', 'family', 'origin'),
    [
        (WAVE, 'pytorch', 'wavemlp', 'huawei-noah/Efficient-AI-Backbones wavemlp_pytorch'),
        (
            mindspore_names(WAVE).values(),
            'mindspore',
            'wavemlp',
            'mindspore-ai/models research/cv/wave_mlp',
        ),
        (REP, 'pytorch', 'repmlpnet', 'DingXiaoH/RepMLP'),
        (REP_DEPLOY, 'pytorch', 'repmlpnet', 'DingXiaoH/RepMLP'),
        (map(mmpretrain_name, REP), 'pytorch', 'repmlpnet', 'open-mmlab/mmpretrain configs/repmlp'),
        (
            map(mmpretrain_name, REP_DEPLOY),
            'pytorch',
            'repmlpnet',
            'open-mmlab/mmpretrain configs/repmlp',
        ),
        (
            map(mindcv_name, mindspore_names(REP).values()),
            'mindspore',
            'repmlpnet',
            'mindspore-lab/mindcv mindcv/models/repmlp.py',
        ),
        (
            paddle_names(REP).values(),
            'paddle',
            'repmlpnet',
            'BR-IDL/PaddleViT image_classification/RepMLP',
        ),
        (GMLP, 'pytorch', 'gmlp', TIMM),
        (paddlevit(GMLP), 'paddle', 'gmlp', f'{PADDLEVIT}/gMLP'),
        (RESMLP, 'pytorch', 'resmlp', TIMM),
        (deit(RESMLP), 'pytorch', 'resmlp', 'facebookresearch/deit resmlp_models.py'),
        (paddlevit(RESMLP), 'paddle', 'resmlp', f'{PADDLEVIT}/ResMLP'),
        (MIXER, 'pytorch', 'mlp_mixer', TIMM),
        (paddlevit(MIXER), 'paddle', 'mlp_mixer', f'{PADDLEVIT}/MLP-Mixer'),
        (
            mmpretrain_mixer(MIXER),
            'pytorch',
            'mlp_mixer',
            'open-mmlab/mmpretrain configs/mlp_mixer',
        ),
        (
            flax(MIXER),
            'jax',
            'mlp_mixer',
            'google-research/vision_transformer vit_jax/models_mixer.py',
        ),
        (VIP, 'pytorch', 'vip', 'Andrew-Qibin/VisionPermutator models/vip.py'),
    ],
    ids=lambda value: None if isinstance(value, str) else '',
)
def test_family_and_release(names, framework, family, origin):
    names = list(names)
    for given in (names, [*names, 'total_ops']):
        found, release = identify(given, framework)
        assert (found.name, release.origin, release.framework) == (family, origin, framework)
        assert release in found.releases


def test_similar_names_are_not_enough():
    vip = [name.replace('fc_h', 'mlp_h').replace('tfc', 'x') for name in WAVE]
    with pytest.raises(ValueError, match='of no known family'):
        identify(vip, 'pytorch')


def test_the_error_for_unknown_names_lists_all_marks():
    with pytest.raises(ValueError, match=r'1 tensors \(conv1\.weight \.\.\.\)') as caught:
        identify(['conv1.weight'], 'pytorch')
    for family in families():
        assert family.name in str(caught.value)
        for release in family.releases:
            assert ', '.join(release.marks) in str(caught.value)
    assert 'converted already' not in str(caught.value)


def test_names_of_several_releases_are_an_error():
    of_timm = {**GMLP, **RESMLP, **MIXER}
    with pytest.raises(ValueError, match=r'could be of gmlp .* or mlp_mixer .* or resmlp'):
        identify(of_timm, 'pytorch')
    for family in families():
        for release in family.releases:
            found = identify(release.marks, release.framework)
            assert found == (family, release)


def test_other_models_of_timm_are_not_mistaken_for_converted_files():
    with pytest.raises(ValueError, match='of no known family') as caught:
        identify(['stem.proj.weight', 'blocks.0.conv.weight'], 'pytorch')
    assert 'converted already' not in str(caught.value)


@pytest.mark.parametrize('name', ['backbone.stem.conv.weight', 'stem.conv.weight'])
def test_converted_files_are_pointed_out(name):
    with pytest.raises(ValueError, match='converted already'):
        identify([name, 'head.fc.weight'], 'pytorch')


def test_other_backbones_are_not_mistaken_for_converted_files():
    with pytest.raises(ValueError, match='of no known family') as caught:
        identify(['backbone.conv1.weight'], 'pytorch')
    assert 'converted already' not in str(caught.value)


def test_a_framework_without_a_release():
    with pytest.raises(ValueError, match='a paddle file with the names of wavemlp') as caught:
        identify(WAVE, 'paddle')
    assert 'known from pytorch, mindspore' in str(caught.value)


def test_clashing_families_are_an_error():
    (wave,) = (family for family in families() if family.name == 'wavemlp')
    release = replace(wave.releases[0], marks=('norm.weight',), origin='elsewhere')
    clash = replace(wave, name='other', releases=(release,))
    with pytest.raises(ValueError, match=r'could be of wavemlp \(.*\) or other \(elsewhere\)'):
        identify(WAVE, 'pytorch', (*families(), clash))


def test_every_family_is_found_by_its_file(monkeypatch, tmp_path):
    folder = Path(convert.__file__).parent
    files = {p.stem for p in folder.glob('*.py') if re.search('^FAMILY = ', p.read_text(), re.M)}
    assert [family.name for family in families()] == sorted(files)

    source = (folder / 'gmlp.py').read_text()
    names = {"name='gmlp'": "name='newmlp'", 'mlp_channels.gate.proj': 'mixer.proj'}
    for old, new in names.items():
        assert old in source
        source = source.replace(old, new)
    (tmp_path / 'newmlp.py').write_text(source)
    monkeypatch.setattr(convert, '__path__', [*convert.__path__, str(tmp_path)])
    families.cache_clear()
    try:
        found, _ = identify(['stem.proj.weight', 'blocks.0.mixer.proj.weight'], 'pytorch')
    finally:
        monkeypatch.undo()
        families.cache_clear()
        sys.modules.pop('mmwave.convert.newmlp', None)
    assert found.name == 'newmlp'
    assert 'newmlp' not in [family.name for family in families()]
