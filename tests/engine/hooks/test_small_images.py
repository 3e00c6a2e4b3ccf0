"""An image that is too small for a backbone is no end of an evaluation."""

import logging
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import mmdet.models
import mmengine
import mmpretrain.models
import mmseg.models
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from torch.nn import functional

from mmwave import apis
from mmwave.apis import prepare_training, train
from mmwave.engine.hooks import SmallImagesHook
from tests.contracts import ROOT
from tests.tiny_run import write_run

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
@pytest.mark.parametrize('slide', [False, True])
def test_heads_that_resize_to_a_padded_size_know_it(slide):
    """mmseg's mask heads ask for 'pad_shape' first, also in a window of a sliding inference."""
    model = made(segmentor, slide)

    def resized(logits, metas):
        return functional.interpolate(logits, metas[0].get('pad_shape') or metas[0]['img_shape'])

    model.decode_head.predict_by_feat = resized
    with Evaluation(model):
        got = model.test_step(batch(segmentor, (20, 70)))[0]
    assert got.pred_sem_seg.data.shape == (1, 20, 70)


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


VAL = {'a/0.png': (64, 64), 'b/0.png': (64, 80), 'a/1.png': (70, 64), 'b/2.png': (20, 40)}


@pytest.mark.dist
def test_a_run_of_two_processes_evaluates_all_and_draws_all(tmp_path):
    """Also what the validation of a training says, and that the other images score the same."""
    config, work = write_run(tmp_path, VAL), tmp_path / 'work'
    runner = train(prepare_training(str(config), work_dir=str(work)))
    line = (
        '1 image is too small for the backbone after the pipeline, and padded: '
        f'{tmp_path / "data/val/b/2.png"}\n'
    )
    assert Path(runner.logger.log_file).read_text().count(line) == 1
    command = [
        'tools/dist_test.sh',
        config,
        work / 'epoch_1.pth',
        2,
        '--work-dir',
        tmp_path / 'two',
    ]
    out, shown = tmp_path / 'out.pkl', tmp_path / 'shown'
    done = subprocess.run(
        [*map(str, command), '--out', str(out), '--show-dir', str(shown)],
        cwd=ROOT,
        env={**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (done.stdout + done.stderr).count(line) == 1
    drawn = sorted(str(path.relative_to(shown)) for path in shown.rglob('*.png'))
    assert drawn == sorted(f'{name}_0.png' for name in VAL)
    scores = {result['img_path']: result['pred_score'] for result in mmengine.load(out)}
    (tmp_path / 'data/val/b/2.png').unlink()
    alone = tmp_path / 'alone.pkl'
    apis.test(
        apis.prepare_testing(
            str(config), str(work / 'epoch_1.pth'), work_dir=str(tmp_path / 'one'), out=str(alone)
        )
    )
    others = mmengine.load(alone)
    assert len(others) == len(scores) - 1 == 3
    for result in others:
        torch.testing.assert_close(scores[result['img_path']], result['pred_score'])


def test_a_training_image_that_is_too_small_stays_an_error(tmp_path):
    config = write_run(tmp_path)
    cv2.imwrite(str(tmp_path / 'data/train/a/0.png'), np.zeros((20, 40, 3), np.uint8))
    with pytest.raises(ValueError, match=r'20 x 40 .* too small'):
        train(prepare_training(str(config), work_dir=str(tmp_path / 'work')))
