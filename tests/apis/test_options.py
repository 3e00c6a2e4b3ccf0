"""Options that replace settings: right ones are merged, others end in one line that helps."""

import pytest
from mmengine.config import Config

from mmwave.apis import load_config
from mmwave.apis.options import merge, top_level, unused_settings
from mmwave.apis.usage import UsageError
from mmwave.apis.values import Typed
from tests.contracts import ROOT

CLASSIFIER = ROOT / 'configs/wavemlp/wavemlp-t_in1k.py'
DETECTOR = ROOT / 'configs/wavemlp/wavemlp-t-dw_mask-rcnn_1x_coco.py'
SEGMENTOR = ROOT / 'configs/wavemlp/wavemlp-m_sem-fpn_40k_ade20k-512x512.py'


@pytest.fixture(scope='module')
def configs():
    return {path: Config.fromfile(path) for path in (CLASSIFIER, DETECTOR, SEGMENTOR)}


@pytest.fixture
def warned(monkeypatch):
    lines = []
    monkeypatch.setattr('mmwave.apis.options._warn', lines.append)
    return lines


def merged(cfg: Config, *options: str) -> Config:
    """Return a copy of a config with options as they are typed."""
    cfg = Config(cfg._cfg_dict.to_dict())
    pairs = (option.partition('=') for option in options)
    merge(cfg, {key: Typed(value) for key, _, value in pairs})
    return cfg


def at(cfg: Config, key: str):
    node = cfg
    for name in key.split('.'):
        node = node[int(name) if isinstance(node, list | tuple) else name]
    return node


@pytest.mark.parametrize(
    ('path', 'option', 'value'),
    [
        (CLASSIFIER, 'model.backbone.arch=s', 's'),
        (CLASSIFIER, 'model.backbone.out_indices=(0,1)', (0, 1)),
        (CLASSIFIER, 'model.backbone.deploy=True', True),  # an argument that the config leaves out
        (CLASSIFIER, 'model.head.loss.label_smooth_val=0.2', 0.2),
        (CLASSIFIER, 'train_dataloader.batch_size=4.0', 4),
        (CLASSIFIER, 'train_dataloader.pin_memory=True', True),
        (CLASSIFIER, 'train_dataloader.dataset.data_root=/my data/a,b', '/my data/a,b'),
        (CLASSIFIER, 'train_dataloader.dataset.metainfo.classes=[traffic light,Äpfel]', None),
        (CLASSIFIER, 'optim_wrapper.loss_scale=dynamic', 'dynamic'),
        (CLASSIFIER, 'optim_wrapper.accumulative_counts=4', 4),
        (CLASSIFIER, 'optim_wrapper.paramwise_cfg.custom_keys.nrm=0', 0),
        (CLASSIFIER, 'optim_wrapper.clip_grad.max_norm=1', 1),
        (CLASSIFIER, 'param_scheduler.0.end=5', 5),
        (CLASSIFIER, 'train_cfg.max_epochs=1e2', 100),
        (CLASSIFIER, 'randomness.seed=1', 1),
        (CLASSIFIER, 'compile=True', True),
        (CLASSIFIER, 'find_unused_parameters=True', True),
        (CLASSIFIER, 'data_check.max_files=10', 10),
        (CLASSIFIER, 'env_cfg.cudnn_benchmark=False', False),
        (CLASSIFIER, 'default_hooks.checkpoint.interval=3', 3),
        (CLASSIFIER, 'default_hooks.visualization=None', None),
        (CLASSIFIER, 'work_dir=2024_01_02', '2024_01_02'),
        (DETECTOR, 'model.neck.add_extra_convs=on_input', 'on_input'),
        (DETECTOR, 'model.backbone.init_cfg=None', None),
        (DETECTOR, 'test_evaluator.metric=bbox', 'bbox'),
        (DETECTOR, 'test_evaluator.metric=bbox,segm', ['bbox', 'segm']),
        (DETECTOR, 'test_evaluator.outfile_prefix=out/a', 'out/a'),
        (DETECTOR, 'model.test_cfg.rcnn.score_thr=0.01', 0.01),
        (DETECTOR, 'visualizer.vis_backends.0.type=TensorboardVisBackend', 'TensorboardVisBackend'),
        (DETECTOR, 'train_dataloader.dataset.pipeline.2.scale=(640,640)', (640, 640)),
        (SEGMENTOR, 'train_cfg.max_iters=100', 100),
        (SEGMENTOR, 'model.decode_head.num_classes=2', 2),
        (SEGMENTOR, 'train_dataloader.dataset.reduce_zero_label=False', False),
    ],
)
def test_options_in_use(configs, warned, path, option, value):
    key = option.partition('=')[0]
    found = at(merged(configs[path], option), key)
    right = ['traffic light', 'Äpfel'] if key.endswith('.classes') else value
    assert (type(found), found) == (type(right), right)
    assert not warned


def test_parts_that_are_replaced_as_a_whole(configs):
    optimizer = 'optim_wrapper.optimizer'
    cfg = merged(
        configs[CLASSIFIER],
        f'{optimizer}.momentum=0.9',
        f'{optimizer}._delete_=True',
        f'{optimizer}.type=SGD',
        f'{optimizer}.lr=0.1',
    )
    assert cfg.optim_wrapper.optimizer == dict(type='SGD', lr=0.1, momentum=0.9)
    cfg = merged(
        configs[CLASSIFIER],
        'model.backbone.init_cfg.type=Pretrained',
        'model.backbone.init_cfg.checkpoint=/my files/a,b.pth',
        'custom_hooks=[{"type": "EMAHook", "momentum": 1e-4}]',
    )
    assert cfg.model.backbone.init_cfg == dict(type='Pretrained', checkpoint='/my files/a,b.pth')
    assert cfg.custom_hooks == [dict(type='EMAHook', momentum=1e-4)]


WRONG = [
    (CLASSIFIER, 'model.bakbone.arch=s', r'^model\.bakbone: .*mean model\.backbone\?$'),
    (CLASSIFIER, 'model.backbone.drop_pth_rate=0', r'of WaveMLP; .*backbone\.drop_path_rate\?$'),
    (CLASSIFIER, 'optim_wraper.type=x', r'^optim_wraper: no such setting; .*mean optim_wrapper\?$'),
    (CLASSIFIER, 'train_cfg.max_epoch=3', r'EpochBasedTrainLoop; .*mean train_cfg\.max_epochs\?$'),
    (SEGMENTOR, 'train_cfg.max_epochs=3', r'no such setting of IterBasedTrainLoop'),
    (CLASSIFIER, 'max_epochs=3', r'^max_epochs: no such setting; .*mean train_cfg\.max_epochs\?$'),
    (CLASSIFIER, 'seed=3', r'^seed: no such setting; did you mean randomness\.seed\?$'),
    (CLASSIFIER, 'lr=1', r'mean optim_wrapper\.optimizer\.lr\?$'),
    (CLASSIFIER, 'foo.bar=1', r'^foo: no such setting; the config has auto_scale_lr, '),
    (CLASSIFIER, 'randomness.sead=3', r'mean randomness\.seed\?$'),
    (CLASSIFIER, 'train_dataloader.num_worker=3', r'mean train_dataloader\.num_workers\?$'),
    (CLASSIFIER, 'optim_wrapper.optimizer.beta=1', r'of AdamW; .*optimizer\.betas\?$'),
    (CLASSIFIER, 'param_scheduler.0.bgin=1', r'mean param_scheduler\.0\.begin\?$'),
    (DETECTOR, 'train_dataloader.dataset.datroot=a', r'CocoDataset; .*dataset\.data_root\?$'),
    (DETECTOR, 'train_dataloader.dataset.pipeline.2.scales=1', r'of Resize; .*2\.scale\?$'),
    (
        CLASSIFIER,
        'model.head.loss.weihgt=1',
        r'mean model\.head\.loss\.loss_weight|no such setting of LabelSmoothLoss',
    ),
    # What stands in a dict, which is merged key by key.
    (CLASSIFIER, "randomness={'sed': 3}", r'^randomness\.sed: .*mean randomness\.seed\?$'),
    (DETECTOR, "train_dataloader={'batch_sze': 4}", r'mean train_dataloader\.batch_size\?$'),
    (
        DETECTOR,
        "train_dataloader={'batch_size': 'two'}",
        r"^train_dataloader\.batch_size=two: expected a number as 2, got the text 'two'$",
    ),
    (CLASSIFIER, 'custom_imports.imports=no_such_module', 'no_such_module, which Python does not'),
    (CLASSIFIER, 'custom_imports.imports=3', '^custom_imports: '),
    # Types.
    (
        CLASSIFIER,
        'train_dataloader.batch_size=two',
        r"^train_dataloader\.batch_size=two: expected a number as 128, got the text 'two'$",
    ),
    (CLASSIFIER, 'train_cfg.max_epochs=', r"expected a number as 300, got the text ''"),
    (CLASSIFIER, 'train_dataloader.persistent_workers=yes', r"True or False as True, .*'yes'"),
    (CLASSIFIER, 'model.backbone=ResNet', r'expected a dict as .*got a text; .*backbone\.NAME='),
    (CLASSIFIER, 'model.backbone=3', r'got a number'),
    (CLASSIFIER, 'train_cfg=x', r'expected a dict'),
    (DETECTOR, 'model.backbone.out_indices=[1,2', r'brackets of this list do not match'),
    # Places that are not there.
    (
        DETECTOR,
        'visualizer.vis_backends.3.type=x',
        r"is a list of 1, which has no '3': accepted is an index from 0 to 0$",
    ),
    (CLASSIFIER, 'param_scheduler.-1.end=x', r"is a list of 2, which has no '-1'"),
    (CLASSIFIER, 'param_scheduler.end=x', r"is a list of 2, which has no 'end'"),
    (CLASSIFIER, 'train_cfg.max_epochs.a=1', r'train_cfg\.max_epochs is 300, of which no part'),
    (CLASSIFIER, 'model.backbone.out_indices.0=1', r'is \(3,\), of which no part can be set'),
    # Variables of the config file, which are in its settings already.
    (
        DETECTOR,
        'data_root=/x',
        r'^data_root has no effect: .*; set train_dataloader\.dataset\.data_root, '
        r'val_dataloader\.dataset\.data_root, test_dataloader\.dataset\.data_root instead$',
    ),
    (DETECTOR, 'train_pipeline.2.scale=1', r'set train_dataloader\.dataset\.pipeline\.2\.scale in'),
    (DETECTOR, 'vis_backends.0.type=x', r'set visualizer\.vis_backends\.0\.type instead$'),
]


@pytest.mark.parametrize(
    ('path', 'option', 'message'), WRONG, ids=[option for _, option, _ in WRONG]
)
def test_wrong_options(configs, path, option, message):
    before = configs[path].pretty_text
    with pytest.raises(UsageError, match=message) as caught:
        merged(configs[path], option)
    assert '\n' not in str(caught.value)
    assert configs[path].pretty_text == before


def test_a_new_setting_where_any_is_allowed_is_warned_of_when_it_looks_misspelt(configs, warned):
    merged(configs[DETECTOR], 'model.test_cfg.rcnn.score_thrr=1')
    (line,) = warned
    assert line.endswith('did you mean model.test_cfg.rcnn.score_thr?')


def test_variables_may_be_set_with_all_that_was_made_of_them(configs, warned):
    splits = ('train', 'val', 'test')
    own = [f'{split}_dataloader.dataset.data_root=/x' for split in splits]
    assert merged(configs[DETECTOR], 'data_root=/x', *own).data_root == '/x'
    with pytest.raises(UsageError, match=r'; set test_dataloader\.dataset\.data_root instead'):
        merged(configs[DETECTOR], 'data_root=/x', *own[:2])
    merged(configs[DETECTOR], f'data_root={configs[DETECTOR].data_root}')  # what it is
    assert not warned
    free = Config(dict(mine=1))
    merge(free, {'mine': 2})  # a hook of the user's own may ask for it
    assert free.mine == 2
    assert warned == ['mine: no part of a run is known to read mine']


def test_numbers_that_a_variable_has_in_common_with_a_setting_prove_nothing(configs, warned):
    cfg = Config(configs[DETECTOR]._cfg_dict.to_dict() | {'fold': 1, 'mine': 0.05})
    for name, value in (('fold', 2), ('mine', 0.3)):
        merge(cfg, {name: value})
        assert cfg[name] == value
        assert f'no part of a run is known to read {name}; ' in warned[-1]
        assert warned[-1].endswith('had the same value and keep it')


def test_dicts_in_place_of_none_and_of_lists(configs):
    mixup = {'type': 'Mixup', 'alpha': 0.8}
    for present in (None, [{'type': 'CutMix', 'alpha': 1.0}]):
        cfg = Config(configs[CLASSIFIER]._cfg_dict.to_dict())
        cfg.model.train_cfg = dict(augments=present)
        for option in (
            f'model.train_cfg.augments={mixup}',
            f"model.train_cfg={{'augments': {mixup}}}",
        ):
            assert merged(cfg, option).model.train_cfg.to_dict() == {'augments': mixup}
    options = "model.train_cfg={'_delete_': True, 'augments': {'type': 'Mixup'}}"
    assert merged(cfg, options).model.train_cfg.to_dict() == {'augments': {'type': 'Mixup'}}
    # Entries of a list by their numbers.
    changed = merged(cfg, "param_scheduler={'0': {'end': 7}}")
    assert changed.param_scheduler[0].end == 7
    assert changed.param_scheduler[1] == cfg.param_scheduler[1]


def test_values_of_python_are_values(configs):
    cfg = Config(configs[CLASSIFIER]._cfg_dict.to_dict())
    given = dict(type='mmwave.WaveMLP', arch='a,b')
    merge(cfg, {'model.backbone': given, 'train_cfg.max_epochs': 4.0, 'work_dir': '1'})
    assert cfg.model.backbone.arch == 'a,b'
    assert type(cfg.train_cfg.max_epochs) is float
    assert cfg.work_dir == '1'


@pytest.mark.parametrize(
    ('settings', 'lines'),
    [
        (
            dict(optim_wraper=dict(type='OptimWrapper')),
            ['optim_wraper: nothing reads this setting; did you mean optim_wrapper?'],
        ),
        # Variables, used or not.
        (dict(max_epochs=3, num_classes=2, data_root='a', test_pipeline=[], img_norm_cfg={}), []),
        (dict(optim_wraper=dict(lr=1), optim_wrapper=dict(lr=1)), []),
        (dict(custom_hook=[1], custom_hooks=[1]), []),
    ],
)
def test_settings_of_a_config_file_that_are_nearly_known(settings, lines):
    assert unused_settings(Config(settings)) == lines


def test_what_the_tools_read_is_known():
    assert {'compile', 'data_check', 'tta_model', 'tta_pipeline', 'work_dir'} <= top_level()
    assert {'model', 'train_dataloader', 'randomness', 'launcher', 'resume'} <= top_level()


def test_modules_of_options_are_imported(tmp_path, monkeypatch):
    (tmp_path / 'named_by_option.py').write_text('IMPORTED = True')
    monkeypatch.syspath_prepend(tmp_path)
    config = tmp_path / 'name.py'
    config.write_text('custom_imports = dict(imports=[], allow_failed_imports=False)')
    load_config(str(config), cfg_options={'custom_imports.imports': Typed('[named_by_option]')})
    import sys

    assert sys.modules['named_by_option'].IMPORTED
