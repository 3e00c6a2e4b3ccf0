"""The family of a file and its release are told by its tensor names."""

from dataclasses import replace

import pytest

from mmwave.convert import FAMILIES, identify

from .published import (
    REPMLPNET_TINY,
    TINY,
    mindcv_name,
    mindspore_names,
    mmpretrain_name,
    paddle_names,
    repmlpnet,
    wavemlp,
)

WAVE = list(wavemlp(**TINY))
REP, REP_DEPLOY = (list(repmlpnet(**REPMLPNET_TINY, deploy=deploy)) for deploy in (False, True))


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
    ],
    ids=lambda value: None if isinstance(value, str) else '',
)
def test_family_and_release(names, framework, family, origin):
    names = list(names)
    for given in (names, [*names, 'total_ops']):
        found, release = identify(given, framework)
        assert (found.name, release.origin, release.framework) == (family, origin, framework)
        assert release in found.releases


def test_names_alike_in_another_family_are_not_enough():
    vip = [name.replace('fc_h', 'mlp_h').replace('tfc', 'x') for name in WAVE]
    with pytest.raises(ValueError, match='of no known family'):
        identify(vip, 'pytorch')


def test_unknown_names_say_what_was_looked_for():
    with pytest.raises(ValueError, match=r'1 tensors \(conv1\.weight \.\.\.\)') as caught:
        identify(['conv1.weight'], 'pytorch')
    for family in FAMILIES:
        assert family.name in str(caught.value)
        for release in family.releases:
            assert ', '.join(release.marks) in str(caught.value)
    assert 'converted already' not in str(caught.value)


@pytest.mark.parametrize('name', ['backbone.stem.conv.weight', 'stem.conv.weight'])
def test_converted_files_are_pointed_out(name):
    with pytest.raises(ValueError, match='converted already'):
        identify([name, 'head.fc.weight'], 'pytorch')


def test_backbones_of_others_are_not_taken_for_converted_files():
    with pytest.raises(ValueError, match='of no known family') as caught:
        identify(['backbone.conv1.weight'], 'pytorch')
    assert 'converted already' not in str(caught.value)


def test_a_framework_without_a_release():
    with pytest.raises(ValueError, match='a paddle file with the names of wavemlp') as caught:
        identify(WAVE, 'paddle')
    assert 'known from pytorch, mindspore' in str(caught.value)


def test_clashing_families_are_an_error():
    wave = FAMILIES[0]
    release = replace(wave.releases[0], marks=('norm.weight',), origin='elsewhere')
    clash = replace(wave, name='other', releases=(release,))
    with pytest.raises(ValueError, match=r'could be of wavemlp \(.*\) or other \(elsewhere\)'):
        identify(WAVE, 'pytorch', (*FAMILIES, clash))
