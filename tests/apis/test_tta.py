"""Test-time augmentation of whole runs, on pictures that come with their mirror images."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from mmwave import apis
from mmwave.apis import UsageError, deploy_checkpoint, prepare_testing, prepare_training
from mmwave.apis.tta import use_tta
from mmwave.checkpoint import read_checkpoint
from mmwave.errors import UserError
from tests.contracts import ROOT, randomise_norms

TINY = 'arch=dict(_delete_=True, depths=[1, 1, 1, 1], dims=[8, 8, 16, 16], norm="BN"), lean=False'
CLASSIFIER = f"""
_base_ = '{ROOT}/projects/shapes/configs/wavemlp-t-dw_shapes.py'
model = dict(backbone=dict({TINY}), head=dict(in_channels=16, num_classes=2))
data_preprocessor = dict(num_classes=2)
dataset = dict(data_root='{{data}}', metainfo=dict(classes=['a', 'b']))
dataset['pipeline'] = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
test_dataloader = dict(batch_size=2, dataset=dataset)
val_dataloader = test_dataloader
train_dataloader = dict(dataset=dataset)
"""
DETECTOR = f"""
_base_ = '{ROOT}/projects/shapes/configs/wavemlp-t-dw_retinanet_shapes.py'
model = dict(
    backbone=dict({TINY}),
    neck=dict(in_channels=[8, 16, 16]),
    bbox_head=dict(num_classes=2),
    test_cfg=dict(score_thr=0.0, max_per_img=20),
)
dataset = dict(
    data_root='{{data}}',
    ann_file='instances.json',
    data_prefix=dict(img='val'),
    metainfo=dict(classes=('a', 'b')),
)
test_pipeline = _base_.test_pipeline
test_pipeline[1] = dict(type='Resize', scale_factor=1.0)
dataset['pipeline'] = test_pipeline
test_dataloader = dict(batch_size=2, dataset=dataset)
val_dataloader = test_dataloader
train_dataloader = dict(dataset=dataset)
test_evaluator = dict(ann_file='{{data}}/instances.json')
val_evaluator = test_evaluator
"""
SEGMENTOR = f"""
_base_ = '{ROOT}/projects/shapes/configs/wavemlp-t-dw_sem-fpn_shapes.py'
model = dict(
    backbone=dict({TINY}),
    neck=dict(in_channels=[8, 8, 16, 16]),
    decode_head=dict(num_classes=2),
)
dataset = dict(
    data_root='{{data}}',
    img_suffix='.png',
    data_prefix=dict(img_path='val', seg_map_path='maps'),
    metainfo=dict(classes=('a', 'b')),
)
test_pipeline = _base_.test_pipeline
test_pipeline[1] = dict(type='Resize', scale=(64, 64))
dataset['pipeline'] = test_pipeline
test_dataloader = dict(dataset=dataset)
val_dataloader = test_dataloader
train_dataloader = dict(dataset=dataset)
"""
TASKS = {'mmpretrain': CLASSIFIER, 'mmdet': DETECTOR, 'mmseg': SEGMENTOR}
NAMES = ('one', 'one_mirrored', 'two', 'two_mirrored')


def write_data(folder: Path, task: str) -> None:
    """Write two pictures and their mirror images, and labels in the form of the task."""
    place = folder / 'val' / ('a' if task == 'mmpretrain' else '')
    place.mkdir(parents=True)
    (folder / 'val/b').mkdir(exist_ok=True)
    (folder / 'maps').mkdir()
    rng = np.random.default_rng(0)
    images, boxes = [], []
    for index, name in enumerate(NAMES):
        if index % 2 == 0:
            picture = cv2.resize(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8), (64, 64))
        else:
            picture = picture[:, ::-1]
        cv2.imwrite(str(place / f'{name}.png'), picture)
        labels = (picture[..., 0] > 128).astype(np.uint8)
        cv2.imwrite(str(folder / f'maps/{name}.png'), labels)
        images.append(dict(id=index, file_name=f'{name}.png', width=64, height=64))
        box = dict(bbox=[8, 8, 40, 40], area=1600, iscrowd=0, category_id=1)
        boxes.append(dict(id=index + 1, image_id=index, **box))
    kinds = [dict(id=1, name='a'), dict(id=2, name='b')]
    document = dict(images=images, annotations=boxes, categories=kinds)
    (folder / 'instances.json').write_text(json.dumps(document))


@pytest.fixture(scope='module', params=TASKS)
def task(request, tmp_path_factory):
    """A task's name and a folder with data, a config and random weights."""
    folder = tmp_path_factory.mktemp(request.param)
    write_data(folder / 'data', request.param)
    config = folder / 'config.py'
    config.write_text(TASKS[request.param].replace('{data}', str(folder / 'data')))
    cfg = Config.fromfile(config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(request.param):
        model = MODELS.build(cfg.model)
    randomise_norms(model)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith(('conv_seg.weight', 'fc.weight')):
                weight.mul_(50)  # apart from each other by more than rounding
            elif name.endswith('retina_cls.weight'):
                weight.mul_(5)
        if request.param == 'mmseg':  # both classes come up
            image = torch.from_numpy(cv2.imread(str(folder / 'data/val/one.png')))
            packed = dict(inputs=[image.permute(2, 0, 1)], data_samples=None)
            logits = model.eval()(**model.data_preprocessor(packed), mode='tensor')
            model.decode_head.conv_seg.bias -= logits.mean((0, 2, 3))
    torch.save(dict(state_dict=model.state_dict(), meta={}), folder / 'weights.pth')
    return request.param, folder


def predictions(folder, config='config.py', weights='weights.pth', **settings):
    """Return what a test run predicts, by the picture's name."""
    out, work = str(folder / 'out.pkl'), str(folder / 'work')
    paths = str(folder / config), str(folder / weights)
    apis.test(prepare_testing(*paths, out=out, work_dir=work, **settings))
    return {Path(sample['img_path']).stem: sample for sample in mmengine.load(out)}


def result(name: str, sample: dict, *, mirrored: bool = False) -> np.ndarray:
    """Return scores or a label map, of the mirror image if wanted; of boxes the best ten."""
    if name == 'mmpretrain':
        return sample['pred_score'].numpy()
    if name == 'mmseg':
        labels = sample['pred_sem_seg']['data'].squeeze().numpy()
        return labels[:, ::-1] if mirrored else labels
    found = sample['pred_instances']
    boxes = found['bboxes'].numpy()
    if mirrored:
        boxes = np.stack([64 - boxes[:, 2], boxes[:, 1], 64 - boxes[:, 0], boxes[:, 3]], 1)
    return np.column_stack([boxes, found['scores'].numpy(), found['labels'].numpy()])[:10]


def identity(name: str, folder: Path) -> dict:
    """Options for a single view, as it is."""
    *steps, last = Config.fromfile(folder / 'config.py').test_dataloader.dataset.pipeline
    last = dict(last)
    if 'meta_keys' in last:
        last['meta_keys'] = (*last['meta_keys'], 'flip', 'flip_direction')
    choices = [[dict(type='RandomFlip', prob=0.0)], [last]]
    return {'tta_pipeline': [*steps, dict(type='TestTimeAug', transforms=choices)]}


def test_a_single_view_changes_nothing(task):
    name, folder = task
    plain = predictions(folder)
    merged = predictions(folder, tta=True, cfg_options=identity(name, folder))
    assert plain.keys() == merged.keys() == set(NAMES)
    for image in NAMES:
        np.testing.assert_allclose(
            result(name, merged[image]), result(name, plain[image]), atol=1e-5
        )


def test_a_mirror_image_gets_the_mirrored_result(task):
    name, folder = task
    plain, merged = predictions(folder), predictions(folder, tta=True)
    tolerance = dict(rtol=1e-3, atol=1e-3)
    for image in NAMES[::2]:
        for found, alike in ((plain, False), (merged, True)):
            here = result(name, found[image])
            there = result(name, found[f'{image}_mirrored'], mirrored=True)
            assert here.shape == there.shape
            assert (np.mean(np.isclose(here, there, **tolerance)) > 0.99) == alike
