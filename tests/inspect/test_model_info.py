"""What a model costs, counted and measured from its config."""

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmwave.apis.config_names import find_config
from mmwave.errors import UserError
from mmwave.inspect import count_macs, count_params, info
from mmwave.inspect.model_info import dense_parts, image_size

SMALL = {
    'model.backbone.arch': dict(_delete_=True, depths=[1, 1, 1, 1], dims=[8, 8, 16, 16], norm='BN')
}
CLASSIFIER = dict(**SMALL, **{'model.head.in_channels': 16})
DETECTOR = dict(**SMALL, **{'model.neck.in_channels': [8, 16, 16]})
TWO_STAGE = dict(**SMALL, **{'model.neck.in_channels': [8, 8, 16, 16]})


def test_a_classifier_is_counted_whole():
    found = info('wavemlp-t_in1k', cfg_options=CLASSIFIER, timed=False)
    cfg = Config.fromfile(find_config('wavemlp-t_in1k'))
    cfg.merge_from_dict(CLASSIFIER)
    with DefaultScope.overwrite_default_scope('mmpretrain'), torch.device('meta'):
        model = MODELS.build(cfg.model).eval()
        macs = count_macs(model, torch.empty(1, 3, 224, 224))
    (size,) = found.sizes
    assert size.size == (224, 224)
    assert sum(size.macs.values()) == macs
    assert size.macs['head'] == 16 * 1000
    assert sum(found.params.values()) == count_params(model)
    assert found.left_out == ()
    assert size.filling is None
    assert size.forms == {}


def test_of_a_two_stage_detector_the_heads_of_regions_are_left_out():
    sizes = [(64, 96), (128, 192)]
    found = info('wavemlp-t_mask-rcnn_1x_coco', cfg_options=TWO_STAGE, sizes=sizes, timed=False)
    assert found.counted == ('backbone', 'neck', 'rpn_head')
    assert found.left_out == ('roi_head',)
    assert found.params['roi_head'] > 0
    small, large = (sum(size.macs.values()) for size in found.sizes)
    assert large > 3.5 * small


def test_time_and_memory_of_both_forms():
    found = info(
        'wavemlp-t_retinanet_1x_coco', cfg_options=DETECTOR, sizes=[(64, 64)], batch=2, repeats=2
    )
    (size,) = found.sizes
    assert set(size.forms) == {'train', 'deploy'}
    assert len(size.forms['train'].time.wall) == 2
    # The map of the largest level alone, of two images.
    assert size.forms['train'].peak > 2 * 256 * (64 // 8) ** 2 * 4
    assert size.gain is not None
    assert found.no_deploy == ''


def test_without_a_deploy_form_the_reason_is_told(monkeypatch):
    def refuse(model):
        raise UserError('no part of it has a deploy form')

    monkeypatch.setattr('mmwave.inspect.model_info.to_deploy', refuse)
    found = info('wavemlp-t_in1k', cfg_options=CLASSIFIER, sizes=[(32, 32)], repeats=2)
    assert set(found.sizes[0].forms) == {'train'}
    assert found.sizes[0].gain is None
    assert found.no_deploy == 'no part of it has a deploy form'


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        ('wavemlp-t_in1k', (224, 224)),
        ('repmlpnet-t256_in1k', (256, 256)),
        ('wavemlp-t_retinanet_1x_coco', (800, 1344)),  # 1333, padded to a multiple of 32
        ('wavemlp-t_sem-fpn_40k_ade20k-512x512', (512, 512)),
        ('repmlpnet-d256_upernet_80k_cityscapes-512x1024', (512, 1024)),
    ],
)
def test_the_size_that_a_config_is_about(name, size):
    assert image_size(Config.fromfile(find_config(name))) == size


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(batch=0), 'batch=0 must be at least 1'),
        (dict(repeats=1), 'repeats=1 must be at least 2'),
        (dict(sizes=[(16, 64)]), 'image of 16 x 64 pixels .* at least 32'),
    ],
)
def test_what_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        info('wavemlp-t_in1k', cfg_options=CLASSIFIER, timed=False, **options)


def test_a_pipeline_without_a_size():
    cfg = Config(dict(model=dict(), test_dataloader=dict(dataset=dict(pipeline=[]))))
    with pytest.raises(UserError, match=r'pipeline states no image size: give one \(--size\)'):
        image_size(cfg)


def test_parts_in_the_order_in_which_they_run():
    model = torch.nn.Module()
    for name in ('head', 'neck', 'backbone', 'roi_head'):
        setattr(model, name, torch.nn.Identity())
    assert list(dense_parts(model)) == ['backbone', 'neck', 'head']
