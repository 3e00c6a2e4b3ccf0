"""The accuracy of a batch without a labelled pixel."""

from types import SimpleNamespace

import pytest
import torch
from mmseg.models.losses import accuracy
from torch import nn

from mmwave.engine.hooks import IgnoredLabelsHook


def head(ignored=255):
    made = nn.Module()
    made.ignore_index = ignored
    return made


def outputs_of(model, maps, logits, names, ignored=255):
    """What is left of a step's values, of labels and logits (N, 2, h, w)."""
    labels = torch.stack(maps)
    value = accuracy(logits, labels, ignore_index=ignored).mean()
    outputs = dict.fromkeys(names, value) | dict(loss=torch.tensor(0.0))
    samples = [SimpleNamespace(gt_sem_seg=SimpleNamespace(data=m[None])) for m in maps]
    runner = SimpleNamespace(model=model)
    IgnoredLabelsHook().after_train_iter(runner, 0, dict(data_samples=samples), outputs)
    assert 'loss' in outputs
    return outputs


@pytest.fixture
def model():
    made = nn.Module()
    made.decode_head = head()
    made.auxiliary_head = nn.ModuleList([head(), head(ignored=0)])
    return made


NAMES = ['decode.acc_seg', 'aux_0.acc_seg', 'aux_1.acc_seg']


def test_there_is_none_where_all_labels_are_ignored(model):
    ignored = torch.full((2, 2), 255)
    left = outputs_of(model, [ignored] * 2, torch.zeros(2, 2, 2, 2), NAMES)
    assert set(left) == {'loss', 'aux_1.acc_seg'}  # whose head ignores another label
    assert left['aux_1.acc_seg'] > 99.99  # what mmseg says of such a batch


@pytest.mark.parametrize('right', [True, False])
def test_one_labelled_pixel_counts(model, right):
    labels = torch.full((2, 2), 255)
    labels[0, 0] = 1
    logits = torch.zeros(2, 2, 2, 2)
    logits[:, int(right)] = 1
    maps = [torch.full((2, 2), 255), labels]
    left = outputs_of(model, maps, logits, NAMES[:1])
    assert left['decode.acc_seg'].item() == pytest.approx(100 if right else 0, abs=1e-3)


def test_models_without_label_maps_are_left_alone(model):
    outputs = {'decode.acc_seg': torch.tensor(100.0)}
    runner = SimpleNamespace(model=model)
    for batch in (None, {}, dict(data_samples=[SimpleNamespace()])):
        IgnoredLabelsHook().after_train_iter(runner, 0, batch, outputs)
    IgnoredLabelsHook().after_train_iter(runner, 0, None, None)
    assert outputs
