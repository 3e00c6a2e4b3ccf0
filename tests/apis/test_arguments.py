"""Types and arguments of a config, asked of the classes without building them."""

from typing import TypedDict, Unpack

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS

from mmwave.apis.arguments import accepts_text, arguments, check_arguments, did_you_mean, parts
from mmwave.apis.usage import PreflightError
from tests.contracts import ROOT

CLASSIFIER = ROOT / 'configs/wavemlp/wavemlp-t_in1k.py'
DETECTOR = ROOT / 'configs/wavemlp/wavemlp-t-dw_mask-rcnn_1x_coco.py'


class Plain:
    def __init__(self, a, *, b=1):
        pass


class HandsOn(Plain):
    def __init__(self, c: str | int, **kwargs):
        super().__init__(**kwargs)


class HandsOnOnce(HandsOn):
    pass


class Uses(Plain):
    def __init__(self, **kwargs):
        self.d = kwargs.pop('d', None)
        super().__init__(**kwargs)


class Skips(HandsOn):
    def __init__(self, **kwargs):
        super(HandsOn, self).__init__(**kwargs)


class Keeps:
    def __init__(self, **kwargs):
        self.kwargs = kwargs


class Settings(TypedDict, total=False):
    e: int


class Unpacks:
    def __init__(self, f, **settings: Unpack[Settings]):
        pass


def function(g, **kwargs):
    return g, kwargs


@pytest.mark.parametrize(
    ('kind', 'names'),
    [
        (Plain, {'a', 'b'}),
        (HandsOn, {'a', 'b', 'c'}),
        (HandsOnOnce, {'a', 'b', 'c'}),
        (Uses, None),
        (Skips, None),
        (Keeps, None),
        (Unpacks, {'e', 'f'}),
        (function, None),
        (object, set()),
    ],
)
def test_names_of_arguments(kind, names):
    assert arguments(kind) == names


def test_annotations():
    assert accepts_text(HandsOn, 'c') is True
    assert accepts_text(Plain, 'a') is None
    assert accepts_text(None, 'a') is None


def test_the_nearest_name():
    assert did_you_mean('Adamw', {'AdamW', 'SGD'}) == '; did you mean AdamW?'
    assert did_you_mean('x', {'AdamW', 'SGD'}) == ''


@pytest.fixture(scope='module')
def configs():
    return {path: Config.fromfile(path) for path in (CLASSIFIER, DETECTOR)}


def test_parts_of_a_config(configs):
    keys = {part.key for part in parts(configs[DETECTOR])}
    assert keys >= {
        *('model', 'model.backbone', 'model.roi_head.bbox_head.loss_cls', 'train_cfg'),
        *('model.rpn_head.anchor_generator', 'optim_wrapper', 'optim_wrapper.optimizer'),
        *('param_scheduler.0', 'default_hooks.checkpoint', 'visualizer.vis_backends.0'),
        *('train_dataloader.dataset.pipeline.0', 'train_dataloader.batch_sampler'),
        *('val_evaluator', 'test_dataloader.dataset'),
    }


@pytest.mark.parametrize(
    ('path', 'key', 'value', 'message'),
    [
        (CLASSIFIER, 'model.type', 'ImageClasifier', r'^model\.type: .*mean ImageClassifier\?'),
        (CLASSIFIER, 'optim_wrapper.optimizer.type', 'Adamw', r'mean AdamW\?'),
        (DETECTOR, 'train_dataloader.dataset.type', 'CocoDataSet', r'mean CocoDataset\?'),
        (DETECTOR, 'train_dataloader.dataset.pipeline.3.type', 'RandomFlp', r'mean RandomFlip\?'),
        (DETECTOR, 'train_dataloader.sampler.type', 'DefaultSample', r'mean DefaultSampler\?'),
        (DETECTOR, 'default_hooks.timer.type', 'IterTimeHook', r'mean IterTimerHook\?'),
        (DETECTOR, 'val_evaluator.type', 'CocoMetrics', r'mean CocoMetric\?'),
        (
            DETECTOR,
            'model.rpn_head.type',
            'Nothing',
            r"'Nothing' is not registered in scope 'mmdet'",
        ),
        (DETECTOR, 'train_dataloader.dataset.anno_file', 'a', r'CocoDataset; .*\.ann_file\?$'),
        (DETECTOR, 'train_dataloader.dataset.pipeline.3.probs', 1, r'RandomFlip; .*3\.prob\?$'),
        (DETECTOR, 'optim_wrapper.optimizer.learning_rate', 1, r'^optim_wrapper\.optimizer\.learn'),
        (DETECTOR, 'default_hooks.timer.every', 1, r'no such setting of IterTimerHook'),
        (DETECTOR, 'param_scheduler.0.gama', 1, r'^param_scheduler\.0\.gama: no such setting of'),
        (DETECTOR, 'model.neck.numouts', 1, r'of FPN; did you mean model\.neck\.num_outs\?$'),
        (DETECTOR, 'train_cfg.max_epoch', 1, r'mean train_cfg\.max_epochs\?$'),
        (
            DETECTOR,
            'optim_wrapper.optimizer.type',
            'SGD',
            r'\.betas: no such setting of SGD; it has .*; what is left of another type goes with',
        ),
        (
            DETECTOR,
            'default_hooks.checkpoints',
            dict(interval=2),
            r'^default_hooks\.checkpoints has no type; did you mean default_hooks\.checkpoint\?$',
        ),
    ],
)
def test_misspelt_names(configs, path, key, value, message):
    cfg = Config(configs[path]._cfg_dict.to_dict())
    cfg.merge_from_dict({key: value})
    with pytest.raises(PreflightError, match=message) as caught:
        check_arguments(cfg)
    assert '\n' not in str(caught.value)


def test_what_is_not_built_is_not_asked(configs):
    cfg = Config(configs[DETECTOR]._cfg_dict.to_dict())
    cfg.merge_from_dict({'train_dataloader.dataset.type': 'Mine', 'optim_wrapper.type': 'Mine'})
    check_arguments(cfg, ('test',))
    with pytest.raises(PreflightError, match='Mine'):
        check_arguments(cfg, ('train', 'val'))


def test_classes_of_the_user_s_own_and_inner_transforms(configs):
    @MODELS.register_module(name='mine_of_this_test')
    class Head(HandsOn):
        pass

    try:
        cfg = Config(configs[CLASSIFIER]._cfg_dict.to_dict())
        cfg.model.head = dict(type='mine_of_this_test', a=1, c=2)
        pipeline = cfg.train_dataloader.dataset.pipeline
        pipeline.insert(1, dict(type='RandomApply', transforms=[dict(type='Resize', scale=3)]))
        check_arguments(cfg)
        cfg.model.head.d = 1
        with pytest.raises(PreflightError, match=r'model\.head\.d: no such setting of Head'):
            check_arguments(cfg)
        del cfg.model.head.d
        cfg.train_dataloader.dataset.pipeline[1]['transforms'][0]['scales'] = 1
        with pytest.raises(PreflightError, match=r'pipeline\.1\.transforms\.0\.scales: no such'):
            check_arguments(cfg)
    finally:
        MODELS.module_dict.pop('mine_of_this_test')
