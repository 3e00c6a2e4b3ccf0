"""Configs and options as they are settled before anything is built."""

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.runner import Runner

from mmwave.apis import (
    UsageError,
    load_config,
    preflight,
    prepare_testing,
    prepare_training,
    train,
)
from mmwave.engine.hooks import LoadReportHook
from tests.contracts import ROOT

LEAF = ROOT / 'configs/wavemlp/wavemlp-t_in1k.py'


@pytest.fixture
def data(tmp_path):
    """Options that point the leaf at a folder of two images."""
    options = {}
    for split in ('train', 'val'):
        folder = tmp_path / 'data' / split / 'only'
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / 'a.png'), np.zeros((8, 8, 3), np.uint8))
    for split in ('train', 'val', 'test'):
        options[f'{split}_dataloader.dataset.data_root'] = str(tmp_path / 'data')
    return options


def test_work_dir_is_the_option_s_or_the_config_s_or_named_after_the_config(tmp_path):
    config = tmp_path / 'name.py'
    config.write_text('a = 1')
    assert load_config(str(config)).work_dir == 'work_dirs/name'
    assert load_config(str(config), work_dir='there').work_dir == 'there'
    config.write_text("work_dir = 'here'")
    assert load_config(str(config)).work_dir == 'here'
    assert load_config(str(config), cfg_options={'a.b': 2}).a.b == 2


def test_training_options(data, tmp_path):
    checkpoint = tmp_path / 'epoch_1.pth'
    checkpoint.write_bytes(b'')
    plain = prepare_training(str(LEAF), cfg_options=data)
    assert (plain.resume, plain.load_from) == (False, None)
    auto = prepare_training(str(LEAF), cfg_options=data, resume='auto', auto_scale_lr=True)
    assert (auto.resume, auto.load_from) == (True, None)
    assert auto.auto_scale_lr.enable is True
    named = prepare_training(str(LEAF), cfg_options=data, resume=str(checkpoint))
    assert (named.resume, named.load_from) == (True, str(checkpoint))
    fp32 = data | {'optim_wrapper.type': 'OptimWrapper'}
    assert prepare_training(str(LEAF), cfg_options=fp32).optim_wrapper.type == 'OptimWrapper'
    amp = prepare_training(str(LEAF), cfg_options=fp32, amp=True).optim_wrapper
    assert amp == dict(plain.optim_wrapper, loss_scale='dynamic')  # what it is by default


@pytest.mark.parametrize(
    ('options', 'arguments', 'message'),
    [
        ({}, dict(resume='none.pth'), 'no such checkpoint: none.pth'),
        ({'auto_scale_lr': None}, dict(auto_scale_lr=True), r'no auto_scale_lr\.base_batch_size'),
        ({'optim_wrapper.type': 'Other'}, dict(amp=True), 'OptimWrapper, not Other'),
        (
            {'model.backbone.init_cfg': dict(type='Pretrained', checkpoint='none.pth')},
            {},
            r'no pretrained weights at none\.pth .*convert_checkpoint.*init_cfg=None',
        ),
    ],
)
def test_what_does_not_fit_training(data, options, arguments, message):
    with pytest.raises(UsageError, match=message):
        prepare_training(str(LEAF), cfg_options=data | options, **arguments)


def test_testing_options(data, tmp_path):
    checkpoint = tmp_path / 'epoch_1.pth'
    checkpoint.write_bytes(b'')
    shown, out = tmp_path / 'shown', str(tmp_path / 'out.pkl')
    cfg = prepare_testing(
        str(LEAF), str(checkpoint), cfg_options=data, out=out, show_dir=str(shown)
    )
    assert cfg.load_from == str(checkpoint)
    assert cfg.test_evaluator[-1] == dict(type='DumpResults', out_file_path=out)
    assert shown.is_dir()
    assert cfg.default_hooks.visualization.out_dir == str(shown)
    with pytest.raises(UsageError, match=r'scores\.csv: predictions are written to a \.pkl'):
        prepare_testing(str(LEAF), str(checkpoint), cfg_options=data, out='scores.csv')


def test_unlabelled_sets_are_no_mistake(tmp_path):
    """ImageNet's flat test folder, and a segmentation test set without label maps."""
    (tmp_path / 'test').mkdir()
    cv2.imwrite(str(tmp_path / 'test/a.JPEG'), np.zeros((8, 8, 3), np.uint8))
    flat = dict(type='ImageNet', data_root=str(tmp_path), split='test')
    cfg = dict(default_scope='mmpretrain', test_dataloader=dict(dataset=flat))
    preflight(Config(cfg), splits=('test',))
    images = dict(img_path='test', seg_map_path='labels')
    unlabelled = dict(
        type='BaseSegDataset',
        data_root=str(tmp_path),
        data_prefix=images,
        img_suffix='.JPEG',
        pipeline=[dict(type='LoadImageFromFile')],
    )
    cfg = Config(dict(default_scope='mmseg', test_dataloader=dict(dataset=unlabelled)))
    preflight(cfg, splits=('test',))
    cfg.test_dataloader.dataset.pipeline.append(dict(type='LoadAnnotations'))
    with pytest.raises(ValueError, match='labels'):
        preflight(cfg, splits=('test',))


def test_other_formats_of_annotations_are_not_read_as_coco(tmp_path):
    (tmp_path / 'lines.json').write_text('{"a": 1}\n{"a": 2}\n')
    dataset = dict(type='ODVGDataset', data_root=str(tmp_path), ann_file='lines.json')
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))
    preflight(cfg)
    dataset['type'] = 'CocoDataset'
    cfg = Config(dict(default_scope='mmdet', train_dataloader=dict(dataset=dataset)))
    with pytest.raises(ValueError, match=r'lines\.json .* no valid JSON'):
        preflight(cfg)


def test_a_detector_on_a_gpu_needs_cuda_ops(monkeypatch):
    monkeypatch.setattr('mmwave.apis.run.get_device', lambda: 'cuda')
    monkeypatch.setattr('mmcv.ops.get_compiling_cuda_version', lambda: 'not available')
    with pytest.raises(UsageError, match='built without CUDA ops'):
        train(Config(dict(default_scope='mmdet')))


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, inputs, mode='tensor'):
        return self.layer(inputs)


@pytest.mark.parametrize('form', ['state_dict', 'model', 'bare'])
def test_every_form_of_checkpoint_loads_beside_an_averaged_model(tmp_path, form):
    state = Toy().state_dict()
    torch.save(state if form == 'bare' else {form: state}, tmp_path / 'weights.pth')
    runner = Runner(
        Toy(),
        work_dir=str(tmp_path),
        custom_hooks=[EMAHook(), LoadReportHook(min_fraction=1.0)],
        cfg=Config(dict()),
        experiment_name=f'{form}-{tmp_path.name}',
    )
    runner.call_hook('before_run')
    runner.load_checkpoint(str(tmp_path / 'weights.pth'))
    assert torch.equal(runner.model.layer.weight, state['layer.weight'])
