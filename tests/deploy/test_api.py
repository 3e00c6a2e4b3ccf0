"""``to_deploy`` on everything that holds a backbone."""

import copy

import pytest
import torch
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from mmwave.deploy import to_deploy
from mmwave.models import RepMLPNet
from tests.contracts import build, images, randomise_norms, relative_error
from tests.families import TINY

ARCH = dict(
    depths=(1, 1, 1, 1), dims=(8, 12, 16, 24), windows=(8, 4, 2, 1), share_sets=(1, 2, 4, 8)
)
BACKBONE = dict(type='mmwave.RepMLPNet', arch=ARCH)
FPN = dict(in_channels=[8, 12, 16, 24], out_channels=8)


def classifier():
    return 'mmpretrain', dict(
        type='ImageClassifier',
        backbone=dict(BACKBONE, out_indices=(3,)),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=5, in_channels=24),
    )


def detector():
    anchors = dict(
        type='AnchorGenerator',
        ratios=[1.0],
        octave_base_scale=4,
        scales_per_octave=1,
        strides=[4, 8, 16, 32],
    )
    return 'mmdet', dict(
        type='RetinaNet',
        backbone=BACKBONE,
        neck=dict(type='FPN', num_outs=4, **FPN),
        bbox_head=dict(
            type='RetinaHead',
            num_classes=3,
            in_channels=8,
            feat_channels=8,
            anchor_generator=anchors,
        ),
    )


def segmentor():
    return 'mmseg', dict(
        type='EncoderDecoder',
        backbone=BACKBONE,
        neck=dict(type='FPN', num_outs=4, **FPN),
        decode_head=dict(
            type='FPNHead',
            in_channels=[8] * 4,
            in_index=[0, 1, 2, 3],
            feature_strides=[4, 8, 16, 32],
            channels=8,
            num_classes=3,
        ),
        test_cfg=dict(mode='whole'),
    )


def flat(outputs):
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    return [t for o in outputs for t in flat(o)]


@pytest.mark.parametrize('make', [classifier, detector, segmentor])
def test_whole_models(make):
    scope, cfg = make()
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(scope):
        model = MODELS.build(cfg).double().eval()
        randomise_norms(model)
        before = copy.deepcopy(model.state_dict())
        x = images(2, 3, 70, 52).double()
        new, report = to_deploy(model)
        deployed_cfg = dict(cfg, backbone=dict(cfg['backbone'], deploy=True))
        built = MODELS.build(deployed_cfg).double().eval()
        built.load_state_dict(new.state_dict(), strict=True)
        with torch.no_grad():
            wanted = flat(model(x, mode='tensor'))
            for twin in (new, built):
                got = flat(twin(x, mode='tensor'))
                assert all(relative_error(a, b) < 1e-9 for a, b in zip(got, wanted, strict=True))
    assert list(report.fused) == ['backbone']
    assert report.tensors == (len(model.state_dict()), len(new.state_dict()))
    assert 'backbone: folded 3 norms into the 2 convolutions' in report.summary()
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())
    # Nothing is shared: training on one leaves the other.
    with torch.no_grad():
        for parameter in new.parameters():
            parameter.zero_()
    assert all(torch.equal(t, before[k]) for k, t in model.state_dict().items())


def test_several_backbones_and_one_deployed_already():
    train, done = RepMLPNet(ARCH), RepMLPNet(ARCH, deploy=True)
    new, report = to_deploy(nn.ModuleDict({'a': train, 'b': done, 'c': nn.ModuleList([train])}))
    assert list(report.fused) == ['a']  # c.0 is the same module
    assert new['a'].deploy
    assert new['c'][0] is new['a']
    assert not train.deploy


@pytest.mark.parametrize(
    ('model', 'message'),
    [
        (nn.Linear(2, 2), 'Linear has no part with a deploy form: nothing to fold'),
        (nn.Sequential(), 'Sequential has no part'),
        (RepMLPNet(ARCH, deploy=True), 'in deploy form already: RepMLPNet'),
        (nn.ModuleDict({'b': RepMLPNet(ARCH, deploy=True)}), 'in deploy form already: b'),
    ],
)
def test_nothing_to_do_is_an_error(model, message):
    with pytest.raises(ValueError, match=message):
        to_deploy(model)


def test_deploying_a_deployed_backbone_itself_is_an_error():
    with pytest.raises(ValueError, match='in deploy form already'):
        RepMLPNet(ARCH, deploy=True).deploy_form()


@pytest.mark.parametrize('name', TINY)
@torch.no_grad()
def test_activations_with_parameters(name):
    model = build(name, TINY[name], act_cfg=dict(type='PReLU', init=0.1)).double().eval()
    for k, parameter in enumerate(p for n, p in model.named_parameters() if '.act.' in n):
        parameter.fill_(0.1 + 0.05 * k)
    x = images(2, 3, 36, 40).double()
    for a, b in zip(to_deploy(model)[0](x), model(x), strict=True):
        assert relative_error(a, b) < 1e-12


@pytest.mark.parametrize('name', TINY)
@torch.no_grad()
def test_no_images(name):
    model = build(name, TINY[name]).eval()
    wanted = [tuple(o.shape[1:]) for o in model(images(1, 3, 36, 40))]
    for form in (model, to_deploy(model)[0]):
        assert [tuple(o.shape) for o in form(images(0, 3, 36, 40))] == [(0, *s) for s in wanted]
