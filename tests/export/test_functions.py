"""Models as functions of images."""

import pytest
import torch
from torch import nn

from mmwave.apis import UsageError
from mmwave.apis.building import build_model
from mmwave.apis.run import load_config
from mmwave.export.functions import function_of
from tests.contracts import build, images
from tests.export.models import classifier
from tests.families import FAMILIES
from tests.faults.tasks import write_task


@pytest.fixture
def model(tmp_path):
    def made(task):
        return build_model(load_config(str(write_task(tmp_path, task)))).eval()

    return made


@torch.no_grad()
def outputs_of(model):
    x = images(2, 3, 64, 96)
    function = function_of(model)
    outputs, described = function(x), function.describe(x)
    assert len(outputs) == len(described.outputs)
    return dict(zip(described.outputs, outputs, strict=True)), described.task


def test_a_classifier(model):
    outputs, task = outputs_of(model('classification'))
    assert task == 'classification'
    assert {k: tuple(v.shape) for k, v in outputs.items()} == {'logits': (2, 2)}


def test_a_segmentor(model):
    outputs, task = outputs_of(model('segmentation'))
    assert task == 'segmentation'
    assert {k: tuple(v.shape) for k, v in outputs.items()} == {'logits': (2, 3, 64, 96)}


def test_the_dense_heads_of_a_detector(model):
    made = model('detection')
    outputs, task = outputs_of(made)
    assert task == 'detection'
    strides = [pair[0] for pair in made.bbox_head.prior_generator.strides]
    names = [f'{kind}_{i}' for kind in ('cls_score', 'bbox_pred') for i in range(len(strides))]
    assert list(outputs) == names
    for i, stride in enumerate(strides):
        for name, channels in ((f'cls_score_{i}', 9 * 2), (f'bbox_pred_{i}', 9 * 4)):
            assert outputs[name].shape == (2, channels, -(-64 // stride), -(-96 // stride))


def test_a_backbone():
    backbone = build('WaveMLP', FAMILIES['WaveMLP'].tiny).eval()
    outputs, task = outputs_of(backbone)
    assert task == 'features'
    assert [v.shape[1] for v in outputs.values()] == [s.channels for s in backbone.stage_info]


def test_others_are_refused_in_one_line(model):
    with pytest.raises(UsageError, match=r'^a MaskRCNN has two stages, .*one-stage detectors$'):
        function_of(model('instances'))
    with pytest.raises(UsageError, match=r'^a ReLU cannot be exported: '):
        function_of(nn.ReLU())


def test_heads_that_return_a_list():
    made = classifier()
    made.head = type('Head', (nn.Module,), {'forward': lambda self, x: [x, 2 * x]})()
    x = images(1, 3, 20, 20)
    assert torch.equal(function_of(made)(x)[0], made(x, mode='tensor')[-1])
