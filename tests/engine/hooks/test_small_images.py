"""An image that is too small for a backbone is no end of an evaluation."""

import logging
from types import SimpleNamespace

import mmdet.models
import mmpretrain.models
import mmseg.models
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from torch.nn import functional

from mmwave.engine.hooks import SmallImagesHook
from mmwave.models import MLPMixer, WaveMLP  # noqa: F401

BACKBONE = dict(
    type='mmwave.WaveMLP', arch=dict(depths=[1, 1, 1, 1], dims=[8, 8, 16, 16], norm='BN')
)
PIXELS = dict(mean=[100, 110, 120], std=[50, 60, 70], bgr_to_rgb=True)


def segmentor(slide=False, **preprocessor):
    head = dict(
        type='FCNHead',
        in_channels=16,
        channels=8,
        in_index=3,
        num_convs=1,
        num_classes=4,
        norm_cfg=dict(type='BN'),
    )
    mode = dict(mode='slide', crop_size=(48, 48), stride=(32, 32)) if slide else dict(mode='whole')
    return mmseg.models.EncoderDecoder(
        BACKBONE,
        head,
        test_cfg=ConfigDict(mode),
        data_preprocessor=dict(type='SegDataPreProcessor', **PIXELS, **preprocessor),
    )


def detector(divisor=1):
    return mmdet.models.RetinaNet(
        BACKBONE,
        dict(type='FPN', in_channels=[8, 8, 16, 16], out_channels=8, num_outs=4),
        dict(
            type='RetinaHead',
            num_classes=2,
            in_channels=8,
            feat_channels=8,
            stacked_convs=1,
            anchor_generator=dict(
                type='AnchorGenerator',
                octave_base_scale=4,
                scales_per_octave=1,
                ratios=[1.0],
                strides=[4, 8, 16, 32],
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        ),
        test_cfg=ConfigDict(score_thr=0.0, nms=dict(type='nms', iou_threshold=0.5), max_per_img=20),
        data_preprocessor=dict(type='DetDataPreprocessor', pad_size_divisor=divisor, **PIXELS),
    )


def classifier():
    return mmpretrain.models.ImageClassifier(
        BACKBONE,
        dict(type='GlobalAveragePooling'),
        dict(type='LinearClsHead', in_channels=16, num_classes=3),
        data_preprocessor=dict(mean=PIXELS['mean'], std=PIXELS['std'], to_rgb=True),
    )


SAMPLES = {segmentor: SegDataSample, detector: DetDataSample, classifier: DataSample}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    from mmengine.registry import DefaultScope

    yield
    DefaultScope.get_instance('none', scope_name='mmengine')


def made(builder, *args, **kwargs):
    from mmengine.registry import init_default_scope

    library = {segmentor: 'mmseg', detector: 'mmdet', classifier: 'mmpretrain'}[builder]
    init_default_scope(library)
    __import__(f'{library}.utils').utils.register_all_modules(True)
    torch.manual_seed(0)
    return builder(*args, **kwargs).eval()


def batch(builder, *sizes):
    """Data as a loader gives them: an image of noise of each size."""
    data = dict(inputs=[], data_samples=[])
    for index, (height, width) in enumerate(sizes):
        noise = torch.Generator().manual_seed(height * width)
        data['inputs'].append(
            torch.randint(0, 255, (3, height, width), generator=noise, dtype=torch.uint8)
        )
        shape = dict(ori_shape=(height, width), img_shape=(height, width))
        meta = dict(img_path=f'{height}x{width}.png', scale_factor=(1.0, 1.0), sample_idx=index)
        data['data_samples'].append(SAMPLES[builder](metainfo=shape | meta))
    return data


class Evaluation:
    """A model in evaluation, as a runner's loop calls the hook."""

    def __init__(self, model, mode='test'):
        self.records, self.mode, self.hook = [], mode, SmallImagesHook()
        handler = logging.Handler()
        handler.emit = lambda record: self.records.append(record.getMessage())
        logger = logging.Logger('evaluation')
        logger.addHandler(handler)
        self.runner = SimpleNamespace(model=model, logger=logger)

    def __enter__(self):
        getattr(self.hook, f'before_{self.mode}_epoch')(self.runner)
        return self

    def __exit__(self, *error):
        getattr(self.hook, f'after_{self.mode}_epoch')(self.runner)


@torch.no_grad()
@pytest.mark.parametrize('slide', [False, True])
@pytest.mark.parametrize(('height', 'width'), [(20, 70), (64, 9), (5, 5)])
def test_a_segmentor_s_map_has_the_image_s_size_and_values(slide, height, width):
    model = made(segmentor, slide)
    good = batch(segmentor, (64, 80))
    wanted = model.test_step(good)[0].seg_logits.data
    with pytest.raises(ValueError, match='too small'):
        model.test_step(batch(segmentor, (height, width)))
    with Evaluation(model) as evaluation:
        got = model.test_step(batch(segmentor, (height, width)))[0]
        assert torch.equal(model.test_step(batch(segmentor, (64, 80)))[0].seg_logits.data, wanted)
    assert got.pred_sem_seg.data.shape == (1, height, width)
    # By hand: normalized, padded with zeros, cut.
    data = batch(segmentor, (height, width))
    image = model.data_preprocessor(data)['inputs']
    image = functional.pad(image, (0, max(32 - width, 0), 0, max(32 - height, 0)))
    whole = model.inference(image, [dict(ori_shape=image.shape[2:], img_shape=image.shape[2:])])
    torch.testing.assert_close(got.seg_logits.data, whole[0, :, :height, :width])
    assert evaluation.records == [
        '1 image is too small for the backbone after the pipeline, and padded: '
        f'{height}x{width}.png'
    ]


@torch.no_grad()
def test_padding_of_the_preprocessor_is_added_to():
    model = made(segmentor, test_cfg=dict(size_divisor=16))
    with Evaluation(model):
        got = model.test_step(batch(segmentor, (9, 70)))[0]
    assert got.img_padding_size == (0, 10, 0, 23)
    assert got.pred_sem_seg.data.shape == (1, 9, 70)


@torch.no_grad()
def test_a_detector_finds_what_one_finds_that_pads_to_32(tmp_path):
    wanted = made(detector, 32).test_step(batch(detector, (20, 96)))[0].pred_instances
    model = made(detector)
    with pytest.raises(ValueError, match='too small'):
        model.test_step(batch(detector, (20, 96)))
    with Evaluation(model, 'val') as evaluation:
        got = model.val_step(batch(detector, (20, 96)))[0]
    assert len(wanted) == len(got.pred_instances) > 0
    torch.testing.assert_close(got.pred_instances.bboxes, wanted.bboxes)
    torch.testing.assert_close(got.pred_instances.scores, wanted.scores)
    assert got.pred_instances.bboxes[:, 3].max() <= 20
    assert got.batch_input_shape == (32, 96)
    assert len(evaluation.records) == 1


@torch.no_grad()
def test_a_classifier_scores_the_padded_image():
    model = made(classifier)
    data = batch(classifier, (20, 40))
    image = model.data_preprocessor(data)['inputs']
    wanted = model.head.predict(model.extract_feat(functional.pad(image, (0, 0, 0, 12))))
    with Evaluation(model):
        got = model.test_step(data)
    assert torch.equal(got[0].pred_score, wanted[0].pred_score)


def test_only_in_evaluation_and_only_where_padding_helps():
    model = made(classifier)
    data = batch(classifier, (20, 40))
    with Evaluation(model) as evaluation:
        pass
    with pytest.raises(ValueError, match='too small'):
        model.test_step(data)
    assert evaluation.records == []
    # The user's choice: one size, and no other.
    only = type(model.backbone.size_constraint)(only=(64, 64))
    model.backbone.size_constraint = only
    with Evaluation(model), pytest.raises(ValueError, match='too small'):
        model.test_step(data)
    del model.backbone.size_constraint  # a backbone of another package
    with Evaluation(model):
        assert not model.data_preprocessor._forward_hooks


@torch.no_grad()
def test_images_are_counted_once_and_five_are_named_in_every_process(monkeypatch):
    model = made(classifier)
    monkeypatch.setattr(
        'mmwave.engine.hooks.small_images.all_gather_object',
        lambda mine: [mine, {f'{i}x40.png' for i in range(14, 22)}],
    )
    with Evaluation(model) as evaluation:
        for _ in range(2):
            model.test_step(batch(classifier, (20, 40), (12, 40)))
            model.test_step(batch(classifier, (64, 40)))
    names = ', '.join(f'{i}x40.png' for i in (12, 14, 15, 16, 17))
    assert evaluation.records == [
        '9 images are too small for the backbone after the pipeline, and padded: '
        f'{names} and 4 more'
    ]
