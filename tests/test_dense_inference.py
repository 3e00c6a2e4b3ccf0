"""Segmentors on RepMLPNet, whole and sliding, at sizes that windows fill and at others."""

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import MODELS, DefaultScope
from mmengine.structures import PixelData
from torch import Tensor

from tests.contracts import randomise_norms, relative_error

CLASSES = 5
WINDOW = 64  # pixels
MODEL = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3, size_divisor=32
    ),
    backbone=dict(
        type='mmwave.RepMLPNet',
        arch=dict(
            depths=(1, 1, 1, 1),
            dims=(8, 16, 24, 32),
            windows=((16, 16), (8, 8), (4, 4), (2, 2)),
            share_sets=(1, 2, 4, 8),
        ),
    ),
    decode_head=dict(
        type='UPerHead',
        in_channels=[8, 16, 24, 32],
        in_index=[0, 1, 2, 3],
        pool_scales=(1, 2, 3, 6),
        channels=16,
        num_classes=CLASSES,
        norm_cfg=dict(type='BN'),
    ),
    auxiliary_head=dict(
        type='FCNHead',
        in_channels=24,
        in_index=2,
        channels=8,
        num_convs=1,
        num_classes=CLASSES,
        norm_cfg=dict(type='BN'),
    ),
    train_cfg=dict(),
)
WHOLE = dict(mode='whole')
SLIDING = dict(mode='slide', crop_size=(128, 128), stride=(96, 96))
FILLED = (512, 1024)
SIZES = [FILLED, (331, 517), (130, 47)]


def segmentor(test_cfg: dict) -> BaseModel:
    """The same weights whatever ``test_cfg`` is."""
    pytest.importorskip('mmseg')
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmseg'):
        model = MODELS.build(ConfigDict(MODEL, test_cfg=test_cfg))
    randomise_norms(model)
    return revert_sync_batchnorm(model)


def pixels(height: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def predict(model: BaseModel, image: Tensor) -> Tensor:
    """Logits (classes, H, W) of one image, through everything that testing goes through."""
    from mmseg.structures import SegDataSample

    size = tuple(image.shape[1:])
    sample = SegDataSample(metainfo=dict(img_shape=size, ori_shape=size))
    with torch.no_grad(), DefaultScope.overwrite_default_scope('mmseg'):
        (done,) = model.eval().test_step({'inputs': [image], 'data_samples': [sample]})
    assert done.pred_sem_seg.data.shape == (1, *size)
    return done.seg_logits.data


@pytest.mark.parametrize('test_cfg', [WHOLE, SLIDING], ids=lambda cfg: cfg['mode'])
@pytest.mark.parametrize('size', SIZES, ids=lambda size: 'x'.join(map(str, size)))
def test_logits_have_the_size_of_the_image(size, test_cfg):
    logits = predict(segmentor(test_cfg), pixels(*size))
    assert logits.shape == (CLASSES, *size)
    assert logits.isfinite().all()
    assert logits.std() > 0.01


@pytest.mark.parametrize('size', SIZES, ids=lambda size: 'x'.join(map(str, size)))
def test_one_crop_over_all_of_the_image_is_whole_inference(size):
    cover = dict(mode='slide', crop_size=(512, 1024), stride=(512, 1024))
    whole, slid = (predict(segmentor(cfg), pixels(*size)) for cfg in (WHOLE, cover))
    torch.testing.assert_close(slid, whole, rtol=0, atol=0)


@pytest.mark.parametrize('test_cfg', [WHOLE, SLIDING], ids=lambda cfg: cfg['mode'])
@pytest.mark.parametrize('size', SIZES, ids=lambda size: 'x'.join(map(str, size)))
def test_cutting_once_puts_every_window_where_cutting_in_each_block_does(size, test_cfg):
    once, each = segmentor(test_cfg), segmentor(test_cfg)
    assert once.backbone.cut_once
    each.backbone.cut_once = False
    got, wanted = (predict(model, pixels(*size)) for model in (once, each))
    assert relative_error(got, wanted) < 3e-6


def test_several_crops_are_not_whole_inference():
    """Else the tests above would hold whatever sliding does."""
    whole, slid = (predict(segmentor(cfg), pixels(*FILLED)) for cfg in (WHOLE, SLIDING))
    assert (whole - slid).abs().max() > 0.1 * whole.std()


def test_every_crop_is_predicted_as_an_image_of_its_own():
    image = pixels(128, 256)
    apart = dict(mode='slide', crop_size=(128, 128), stride=(128, 128))
    slid = predict(segmentor(apart), image)
    left, right = (predict(segmentor(WHOLE), half) for half in image.split(128, dim=2))
    torch.testing.assert_close(slid, torch.cat([left, right], dim=2), rtol=0, atol=1e-6)


@pytest.mark.parametrize('size', [(2 * WINDOW, 3 * WINDOW), (101, 77)], ids=['filled', 'odd'])
def test_training_on_a_crop(size):
    from mmseg.structures import SegDataSample

    model = segmentor(WHOLE).train()
    samples = []
    for seed in range(2):
        torch.manual_seed(seed)
        labels = torch.randint(0, CLASSES, (1, *size))
        meta = dict(img_shape=size, ori_shape=size)
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta))
    batch = {'inputs': [pixels(*size)] * 2, 'data_samples': samples}
    with DefaultScope.overwrite_default_scope('mmseg'):
        data = model.data_preprocessor(batch, training=True)
        loss, log = model.parse_losses(model(**data, mode='loss'))
    loss.backward()
    assert all(torch.as_tensor(value).isfinite().all() for value in log.values())
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    assert any(g.abs().max() > 0 for g in gradients)
