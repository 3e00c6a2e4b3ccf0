"""The family of a file is told by its tensor names."""

from dataclasses import replace

import pytest

from mmwave.convert import FAMILIES, identify

from .published import TINY, mindspore_names, wavemlp

NAMES = list(wavemlp(**TINY))


@pytest.mark.parametrize('names', [NAMES, list(mindspore_names(NAMES).values())])
def test_wavemlp(names):
    assert identify(names).name == 'wavemlp'
    assert identify([*names, 'total_ops']).name == 'wavemlp'


def test_names_alike_in_another_family_are_not_enough():
    vip = [name.replace('fc_h', 'mlp_h').replace('tfc', 'x') for name in NAMES]
    with pytest.raises(ValueError, match='of no known family'):
        identify(vip)


def test_unknown_names_say_what_was_looked_for():
    with pytest.raises(ValueError, match=r'1 tensors \(conv1\.weight \.\.\.\)') as caught:
        identify(['conv1.weight'])
    for family in FAMILIES:
        assert family.name in str(caught.value)
        for mark in family.marks:
            assert mark in str(caught.value)
    assert 'converted already' not in str(caught.value)


def test_converted_files_are_pointed_out():
    with pytest.raises(ValueError, match='converted already'):
        identify(['backbone.stem.conv.weight', 'head.fc.weight'])


def test_clashing_families_are_an_error():
    clash = replace(FAMILIES[0], name='other', marks=('norm.weight',))
    with pytest.raises(ValueError, match='could be of wavemlp or other'):
        identify(NAMES, (*FAMILIES, clash))
