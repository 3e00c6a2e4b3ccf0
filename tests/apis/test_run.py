"""Configs and options as they are settled before anything is built."""

import re
import sys
import warnings
from importlib import metadata
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch._dynamo.utils import counters

from mmwave.apis import (
    UsageError,
    load_config,
    preflight,
    prepare_testing,
    prepare_training,
    train,
)
from mmwave.checkpoint import read_checkpoint, state_dict_of
from mmwave.engine.hooks import LoadReportHook
from mmwave.errors import UserError
from tests.contracts import ROOT
from tests.tiny_run import CLASSIFIER

LEAF = ROOT / 'configs/wavemlp/wavemlp-t_in1k.py'


@pytest.fixture
def data(tmp_path):
    """Options that point the leaf at two folders of one image, of one class, each."""
    options = {}
    for split in ('train', 'val'):
        folder = tmp_path / 'data' / split / 'only'
        folder.mkdir(parents=True)
        cv2.imwrite(str(folder / 'a.png'), np.zeros((8, 8, 3), np.uint8))
    for split in ('train', 'val', 'test'):
        options[f'{split}_dataloader.dataset.data_root'] = str(tmp_path / 'data')
        options[f'{split}_dataloader.dataset.metainfo'] = dict(classes=('only',))
    return options


def test_work_dir_is_the_option_s_or_the_config_s_or_named_after_the_config(tmp_path):
    config = tmp_path / 'name.py'
    config.write_text('a = 1')
    assert load_config(str(config)).work_dir == 'work_dirs/name'
    assert load_config(str(config), work_dir='there').work_dir == 'there'
    config.write_text("work_dir = 'here'")
    assert load_config(str(config)).work_dir == 'here'
    assert load_config(str(config), cfg_options={'randomness.seed': 2}).randomness.seed == 2


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
    weights = prepare_training(str(LEAF), cfg_options=data, load_from=str(checkpoint))
    assert (weights.resume, weights.load_from) == (False, str(checkpoint))
    with pytest.raises(UsageError, match=r'give --load-from to start anew .* or --resume'):
        prepare_training(str(LEAF), cfg_options=data, load_from=str(checkpoint), resume='auto')
    with pytest.raises(UsageError, match='no such checkpoint: nowhere'):
        prepare_training(str(LEAF), cfg_options=data, load_from='nowhere')
    fp32 = data | {'optim_wrapper.type': 'OptimWrapper'}
    assert prepare_training(str(LEAF), cfg_options=fp32).optim_wrapper.type == 'OptimWrapper'
    amp = prepare_training(str(LEAF), cfg_options=fp32, amp=True).optim_wrapper
    assert amp == dict(plain.optim_wrapper, loss_scale='dynamic')  # what it is by default


@pytest.mark.parametrize('capability', [(7, 5), (8, 0), (9, 0)])
def test_mixed_precision_is_bfloat16_where_all_gpus_have_it(data, monkeypatch, capability):
    """A type that the config chose stays."""
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda i: capability if i else (9, 0))
    fp32 = data | {'optim_wrapper.type': 'OptimWrapper'}

    def wrapper(**options):
        cfg = prepare_training(str(LEAF), cfg_options={**fp32, **options}, amp=True)
        return {k: cfg.optim_wrapper.get(k) for k in ('type', 'dtype', 'loss_scale')}

    amp = dict(type='AmpOptimWrapper', dtype=None, loss_scale='dynamic')
    bfloat16 = dict(amp, dtype='bfloat16', loss_scale=dict(enabled=False))
    assert wrapper() == (bfloat16 if capability >= (8, 0) else amp)
    assert wrapper(**{'optim_wrapper.type': 'AmpOptimWrapper'}) == amp


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
    assert cfg.test_evaluator[-1] == dict(type='mmwave.DumpWhole', out_file_path=out)
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
    monkeypatch.setattr('mmwave.apis.building.get_device', lambda: 'cuda')
    monkeypatch.setattr('mmcv.ops.get_compiling_cuda_version', lambda: 'not available')
    monkeypatch.setattr('mmwave.mmcv_ops.environment._runs_on_gpus', lambda: False)
    with pytest.raises(UserError, match='built without CUDA ops'):
        train(Config(dict(default_scope='mmdet')))


def test_a_library_that_the_config_needs_and_is_not_here(monkeypatch):
    monkeypatch.setattr('mmwave.apis.libraries.find_spec', lambda name: None)
    config = str(ROOT / 'configs/wavemlp/wavemlp-t-dw_mask-rcnn_1x_coco.py')

    def nothing(name):
        raise metadata.PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr('mmwave.apis.libraries.metadata.version', nothing)
        with pytest.raises(UsageError, match=r"needs mmdet: pip install 'mmwave-suite\[det\]'"):
            prepare_training(config)
        with pytest.raises(UsageError, match=r"needs mmseg: pip install 'mmwave-suite\[seg\]'"):
            train(Config(dict(default_scope='mmseg')))
    # Its files are gone, and its entry is not: another matter, for which there is another message.
    monkeypatch.setattr('mmwave.apis.libraries.check_environment', refuse)
    with pytest.raises(UserError, match='half installed: mmdet'):
        prepare_training(config)


def refuse(*libraries):
    raise UserError(f'half installed: {" ".join(libraries)}')


def test_the_installation_is_checked_before_anything_is_built(data, tmp_path, monkeypatch):
    (tmp_path / 'a.pth').write_bytes(b'')
    monkeypatch.setattr('mmwave.apis.libraries.check_environment', refuse)
    monkeypatch.setattr('mmwave.apis.building.Runner.from_cfg', lambda cfg: pytest.fail('built'))
    monkeypatch.setattr('mmwave.apis.run.preflight', lambda *a, **k: pytest.fail('checked'))
    for call in (
        lambda: prepare_training(str(LEAF), cfg_options=data),
        lambda: prepare_testing(str(LEAF), str(tmp_path / 'a.pth'), cfg_options=data),
        lambda: train(Config(dict(default_scope='mmpretrain'))),
    ):
        with pytest.raises(UserError, match='half installed: mmpretrain'):
            call()


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


SIZES = (
    CLASSIFIER
    + """
# Without momentum: steps of Adam blow rounding up where a gradient is zero.
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01), clip_grad=None
)
param_scheduler = None
custom_hooks = None
train_cfg = dict(max_epochs=1)
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
"""
)


@pytest.fixture
def sizes(tmp_path):
    """A config that trains and validates on single images of five sizes each."""
    rng = np.random.default_rng(0)
    for split, longer in (('train', 0), ('val', 16)):
        for i, (height, width) in enumerate([(64, 96), (96, 64), (70, 81), (110, 64), (64, 120)]):
            folder = tmp_path / 'data' / split / 'ab'[i % 2]
            folder.mkdir(parents=True, exist_ok=True)
            image = rng.integers(0, 255, (height + longer, width, 3), dtype=np.uint8)
            cv2.imwrite(str(folder / f'{i}.png'), image)
    config = tmp_path / 'sizes.py'
    config.write_text(SIZES.format(leaf=LEAF, data=tmp_path / 'data', batch=1))
    return str(config)


def run_compiled(config, work_dir, compiling):
    """Return losses, accuracy and weights of a training, and how many graphs it compiled."""
    torch.compiler.reset()
    counters.clear()
    options = {} if compiling is None else {'compile': compiling}
    runner = train(prepare_training(config, work_dir=str(work_dir), cfg_options=options))
    losses = runner.message_hub.get_scalar('train/loss').data[0]
    accuracy = runner.message_hub.get_scalar('val/accuracy/top1').current()
    saved = state_dict_of(read_checkpoint(work_dir / 'epoch_1.pth'))
    return losses, accuracy, saved, counters['stats']['unique_graphs']


# In training one graph for the first size, then one for all, and one for all in validation. With
# dynamic=True the first one is for all.
@pytest.mark.parametrize(('options', 'graphs'), [({}, 3), (dict(dynamic=True), 2)])
def test_a_compiled_run_records_few_graphs_and_learns_the_same(sizes, tmp_path, options, graphs):
    losses, accuracy, saved, none = run_compiled(sizes, tmp_path / 'eager', None)
    assert none == 0
    got = run_compiled(sizes, tmp_path / 'compiled', dict(backend='eager', **options))
    assert got[3] == graphs
    assert not counters['graph_break']
    assert len(losses) == 5
    np.testing.assert_allclose(got[0], losses, rtol=1e-5)
    assert got[1] == accuracy
    assert got[2].keys() == saved.keys()
    for name, tensor in saved.items():
        torch.testing.assert_close(got[2][name], tensor, rtol=1e-4, atol=1e-5)


def test_two_runs_in_one_process_begin_quietly_and_leave_nothing_behind(sizes, tmp_path, capsys):
    def state():
        return sys.stdout, warnings.showwarning, MMLogger.callHandlers

    before = state()
    for name in ('first', 'second'):
        runner = train(
            prepare_training(sizes, work_dir=str(tmp_path / name), cfg_options={'compile': False})
        )
        shown = capsys.readouterr()
        start = shown.out.partition('Epoch(train)')[0].splitlines()
        assert len(start) + len(shown.err.splitlines()) <= 25
        assert sum('training ' in line for line in start) == 1
        assert shown.out.count('Epoch(train)') == 5
        assert state() == before
        log = Path(runner.logger.log_file).read_text()
        assert log.count('before the first step') == 1
        assert 'Hooks will be executed' in log
        assert log.count('Epoch(train)') == 5
        assert 'StartSummaryHook' not in (tmp_path / name / 'sizes.py').read_text()
    train(prepare_training(sizes, work_dir=str(tmp_path / 'third')), verbose=True)
    assert 'Hooks will be executed' in capsys.readouterr().out


def test_the_summary_tells_scaled_rates_accumulation_compiling_and_unequal_rates(
    sizes, tmp_path, capsys
):
    options = {
        'auto_scale_lr.base_batch_size': 4,
        'optim_wrapper.accumulative_counts': 3,
        'optim_wrapper.optimizer.lr': 0.4,
        'optim_wrapper.paramwise_cfg': dict(custom_keys={'head': dict(lr_mult=0.5)}),
        'compile': dict(backend='eager'),
        'model.backbone.frozen_stages': 0,
    }
    cfg = prepare_training(
        sizes, work_dir=str(tmp_path / 'work'), cfg_options=options, auto_scale_lr=True
    )
    train(cfg)
    shown = capsys.readouterr().out
    for text in (
        r'batch +1 sample x 1 process x 3 accumulated = 3\n',
        r'optimizer +SGD, learning rate 0\.1 \(down to 0\.05 in some groups\), scaled from a batch '
        r'of 4, gradients not clipped\n',
        r'torch\.compile is lazy: the first step, which compiles the backbone, may take minutes\n',
        r'model +ImageClassifier, backbone WaveMLP, [\d,]+ parameters, [\d,]+ of them trained\n',
        r'processes +1, of \d+ threads?, float32\n',
        r'length +1 epoch of 5 iterations\n',
    ):
        assert re.search(text, shown), text


def test_a_model_without_a_backbone_cannot_be_compiled(tmp_path, monkeypatch):
    monkeypatch.setattr('mmwave.apis.building.Runner.from_cfg', bare_runner)
    cfg = Config(dict(work_dir=str(tmp_path), compile=True))
    with pytest.raises(UsageError, match='a Toy has no backbone to compile'):
        train(cfg)


@pytest.mark.parametrize(
    ('setting', 'hooks'),
    [
        ({}, [{'type': 'mmwave.DataCheckHook'}]),
        ({'data_check': True}, [{'type': 'mmwave.DataCheckHook'}]),
        (
            {'data_check': {'max_broken_images': 3}},
            [{'type': 'mmwave.DataCheckHook', 'max_broken_images': 3}],
        ),
        ({'data_check': False}, []),
    ],
)
def test_the_check_of_the_data_is_one_setting(tmp_path, monkeypatch, setting, hooks):
    class Built(Exception):
        pass

    def build(cfg):
        raise Built([h for h in cfg.custom_hooks if h['type'] == 'mmwave.DataCheckHook'])

    monkeypatch.setattr('mmwave.apis.building.Runner.from_cfg', build)
    with pytest.raises(Built) as caught:
        train(Config(dict(work_dir=str(tmp_path), **setting)))
    assert caught.value.args == (hooks,)
    with pytest.raises(UserError, match='data_check has no max_file: accepted are max_files, '):
        train(Config(dict(work_dir=str(tmp_path), data_check=dict(max_file=3))))


def bare_runner(cfg):
    return Runner(Toy(), work_dir=cfg.work_dir, cfg=cfg, experiment_name='bare')
