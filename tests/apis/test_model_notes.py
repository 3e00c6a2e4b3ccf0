"""What a config and a checkpoint are known to say."""

import json

import pytest
from mmengine.config import Config

from mmwave.apis.model_notes import (
    measured_on,
    metrics_of,
    preprocessing_of,
    run_name,
    task_of,
)
from mmwave.engine.hooks.provenance import VALIDATED
from tests.contracts import ROOT

TASKS = {
    'wavemlp-t_in1k': ('image classification', 'image-classification'),
    'wavemlp-t_retinanet_1x_coco': ('object detection', 'object-detection'),
    'wavemlp-t_mask-rcnn_1x_coco': ('instance segmentation', 'image-segmentation'),
    'wavemlp-t_sem-fpn_40k_ade20k-512x512': ('semantic segmentation', 'image-segmentation'),
}


def settings(name):
    return Config.fromfile(ROOT / f'configs/wavemlp/{name}.py').to_dict()


@pytest.mark.parametrize(('name', 'task'), TASKS.items(), ids=TASKS)
def test_tasks_and_preprocessing(name, task):
    cfg = settings(name)
    assert task_of(cfg) == task
    found = preprocessing_of(cfg)
    given = cfg['model'].get('data_preprocessor') or cfg['data_preprocessor']
    assert found['mean'] == given['mean']
    assert found['std'] == given['std']
    assert found['to_rgb'] is True
    assert found.get('pad_size_divisor') == given.get('pad_size_divisor')
    steps = {step['type']: step for step in cfg['test_dataloader']['dataset']['pipeline']}
    assert found['test_sizes']
    for step in found['test_sizes']:
        assert step.items() <= steps[step['type']].items()
    data = measured_on(cfg)
    assert data['type'] == cfg['val_dataloader']['dataset']['type']
    assert data['evaluator']


@pytest.mark.parametrize('junk', [{}, {'model': 1}, {'model': {'roi_head': [], 'module': 3}}])
def test_what_is_not_stated_is_left_out(junk):
    assert task_of(junk) == ('', '')
    assert preprocessing_of(junk) == {}
    assert measured_on(junk) == {}


def test_data_sets_inside_of_others():
    inner = dict(type='A', pipeline=[dict(type='Resize', scale=(3, 4), keep_ratio=True)])
    cfg = dict(test_dataloader=dict(dataset=dict(type='Repeat', dataset=inner)))
    assert preprocessing_of(cfg)['test_sizes'] == [
        {'type': 'Resize', 'scale': (3, 4), 'keep_ratio': True}
    ]


def content(**meta):
    return {
        'meta': {'epoch': 2, 'iter': 12, 'experiment_name': 'my-run_20250101_000000', **meta},
        'message_hub': {'runtime_info': {}},
    }


@pytest.fixture
def source(tmp_path):
    """A checkpoint's path, beside the log of its run."""
    log = tmp_path / '20250101_000000/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    lines = [
        {'mIoU': 10.0, 'data_time': 0.1, 'time': 0.1, 'step': 1},
        {'lr': 0.1, 'loss': 3.0, 'step': 2},
        {'mIoU': 20.0, 'data_time': 0.1, 'time': 0.1, 'step': 2},
        {'mIoU': 30.0, 'step': 12},
    ]
    log.write_text('\n'.join(map(json.dumps, lines)) + '\n{"mIoU": 40')
    return tmp_path / 'epoch_2.pth'


def test_metrics_of_the_log_are_those_of_this_epoch(source):
    assert metrics_of(content(), source, {}) == {'mIoU': 20.0}
    by_iteration = {'default_hooks': {'logger': {'log_metric_by_epoch': False}}}
    assert metrics_of(content(), source, by_iteration) == {'mIoU': 30.0}
    assert metrics_of(content(epoch=3), source, {}) == {}
    assert metrics_of(content(experiment_name='my-run_20250101_000001'), source, {}) == {}
    assert metrics_of(content(epoch='x'), source, {}) == {}


def test_metrics_that_the_checkpoint_notes_come_first(source):
    noted = {'epoch': 2, 'iter': 12, 'metrics': {'mIoU': 50.0, 'nan': float('nan'), 'x': 'y'}}
    assert metrics_of(content(**{VALIDATED: noted}), source, {}) == {'mIoU': 50.0}
    # Those of the validation before are of other weights.
    assert metrics_of(content(**{VALIDATED: {**noted, 'iter': 6}}), source, {}) == {'mIoU': 20.0}


def test_the_score_of_a_best_checkpoint(tmp_path):
    given = content()
    info = dict(best_ckpt='/elsewhere/best_coco_bbox_mAP_epoch_2.pth', best_score=0.25)
    given['message_hub']['runtime_info'] = info
    assert metrics_of(given, tmp_path / 'best_coco_bbox_mAP_epoch_2.pth', {}) == {
        'coco_bbox_mAP': 0.25
    }
    assert metrics_of(given, tmp_path / 'epoch_2.pth', {}) == {}
    assert metrics_of(given, tmp_path / 'best_coco_bbox_mAP_epoch_1.pth', {}) == {}


@pytest.mark.parametrize(
    ('name', 'wanted'),
    [('wavemlp-t_in1k_20250101_000000', 'wavemlp-t_in1k'), ('20250101_000000', ''), ('x', '')],
)
def test_names_of_runs(name, wanted):
    assert run_name({'experiment_name': name}) == wanted
    assert run_name({}) == ''
