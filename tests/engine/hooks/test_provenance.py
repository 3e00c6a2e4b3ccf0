"""What a checkpoint notes of its training."""

import mmengine
import pytest
import torch

import mmwave
from mmwave.engine.hooks import PlainCheckpointHook, ProvenanceHook
from mmwave.engine.hooks.provenance import VALIDATED, VERSIONS
from tests.engine.checkpoints.runs import Rising, run

pytestmark = pytest.mark.usefixtures('own_loader')


def test_validations_and_versions_are_noted(tmp_path):
    Rising.score = 0.0
    hooks = [ProvenanceHook(), PlainCheckpointHook()]
    run(tmp_path, 2, val=True, hooks=hooks, save_best='mAP', rule='greater').train()

    def meta(name):
        return torch.load(tmp_path / name, weights_only=True)['meta']

    # A checkpoint of an epoch is written before its validation, the best one after it.
    assert meta('best_mAP_epoch_1.pth')[VALIDATED] == {
        'epoch': 1,
        'iter': 2,
        'metrics': {'acc': 1.0, 'mAP': -1.0},
    }
    assert meta('epoch_2.pth')[VALIDATED]['iter'] == 2
    assert meta('epoch_2.pth')['iter'] == 4
    assert meta('epoch_2.pth')[VERSIONS] == {
        'torch': torch.__version__,
        'mmengine': mmengine.__version__,
        'mmwave': mmwave.__version__,
    }


def test_before_any_validation_nothing_is_noted():
    content = {'meta': {}}
    ProvenanceHook().before_save_checkpoint(None, content)
    assert content['meta'].keys() == {VERSIONS}
