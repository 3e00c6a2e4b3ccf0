"""What a file must hold is read from the model, which is built without memory or randomness."""

import logging
import random
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmwave.convert import families, gmlp, repmlpnet, vip
from mmwave.convert.family import Recognised
from mmwave.convert.target import expected_of, target_of
from mmwave.errors import UserError
from tests.families import SMALLEST

ARCH = {'depths': (1, 0, 1, 1), 'dim': 8, 'mlp_ratio': 6, 'patch_size': 16}


def recognised(**changes):
    sizes = {'arch': ARCH, 'in_channels': 3, 'classes': 5, 'positions': 16}
    return Recognised(**{**sizes, **changes})


@pytest.mark.parametrize('family', families(), ids=lambda family: family.name)
def test_names_and_shapes_are_the_models_and_the_heads(family):
    settings = {'arch': SMALLEST[family.backbone.__name__], 'out_indices': (0, 3)}
    found = expected_of(family.backbone, 5, **settings)
    model = family.backbone(**settings)
    state = {f'backbone.{k}': tuple(v.shape) for k, v in model.state_dict().items()}
    channels = model.stage_info[-1].channels
    assert found == {**state, 'head.fc.weight': (5, channels), 'head.fc.bias': (5,)}
    assert expected_of(family.backbone, None, **settings) == state


@pytest.mark.parametrize('family', families(), ids=lambda family: family.name)
def test_no_seed_changes_and_nothing_is_logged(family, caplog, capsys):
    caplog.set_level(logging.DEBUG)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    expected_of(family.backbone, 5, arch=next(iter(family.backbone.archs)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])
    assert caplog.text == ''
    assert capsys.readouterr() == ('', '')


def test_named_archs_and_configs():
    target = target_of(gmlp.FAMILY, recognised(in_channels=1))
    assert target.arch == 'custom'
    assert target.backbone == {
        'type': 'mmwave.GMLP',
        'arch': {'depths': [1, 0, 1, 1], 'dim': 8, 'grid': 4},
        'in_channels': 1,
    }
    assert target.sizes.grid == (4, 4)
    named = recognised(arch={**ARCH, 'depths': (7, 8, 7, 8), 'dim': 128}, positions=196)
    assert target_of(gmlp.FAMILY, named).backbone == {'type': 'mmwave.GMLP', 'arch': 'ti16'}


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(arch={**ARCH, 'dim': 7, 'mlp_ratio': 5}), 'no GMLP that we build: dim=7 times'),
        (dict(arch={**ARCH, 'dim': 2**40}, positions=2**80), 'no GMLP that we build: .*overflow'),
        (dict(positions=15), 'the trained grid: 15 positions are no square'),
    ],
)
def test_sizes_of_no_model(changes, message):
    with pytest.raises(UserError, match=message):
        target_of(gmlp.FAMILY, recognised(**changes))


def test_a_mistake_in_a_converter_is_no_users_error():
    with pytest.raises(TypeError, match='width'):
        target_of(gmlp.FAMILY, recognised(arch={**ARCH, 'width': 8}))


def test_enormous_models_need_no_memory():
    side = 2**14
    tracemalloc.start()
    try:
        found = recognised(arch={**ARCH, 'dim': 2**20}, positions=side**2)
        target = target_of(gmlp.FAMILY, found)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert target.expected['backbone.stages.0.0.gate.proj.weight'] == (side**2, side**2)
    assert peak < 64 * 2**20  # Python's own: first calls import modules


def test_deploy_files_have_names_of_their_own():
    fold = repmlpnet.Fold(lambda train: {'a': (len(train),)}, lambda tensors: dict(tensors))
    target = target_of(gmlp.FAMILY, recognised(fold=fold))
    assert target.backbone['deploy'] is True
    assert list(target.expected) == ['a']
    assert target.fold is fold.apply


def test_rules_of_the_arch_or_else_of_the_family():
    family = replace(vip.FAMILY, backbone=gmlp.FAMILY.backbone, rules=('family',))
    assert target_of(family, recognised()).rules == ('family',)
    assert target_of(family, recognised(rules=('arch',))).rules == ('arch',)
