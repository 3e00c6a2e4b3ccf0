"""Numbers that contradict each other end in one line before anything is built; others pass."""

from types import SimpleNamespace

import pytest
from mmengine.config import Config

from mmwave.apis.consistency import check_numbers, switch_off_worker_options
from mmwave.apis.preflight import preflight
from mmwave.apis.usage import PreflightError
from mmwave.models import WaveMLP
from tests.contracts import ROOT

CLASSIFIER = 'configs/wavemlp/wavemlp-t_in1k.py'
DETECTOR = 'configs/wavemlp/wavemlp-t-dw_mask-rcnn_1x_coco.py'
FPN = 'configs/wavemlp/wavemlp-t_sem-fpn_40k_ade20k-512x512.py'
UPERNET = 'configs/wavemlp/wavemlp-t_upernet_160k_ade20k-512x512.py'


@pytest.fixture(scope='module')
def load():
    known = {}

    def load(path, **options):
        if path not in known:
            known[path] = Config.fromfile(ROOT / path)
        cfg = Config(known[path]._cfg_dict.to_dict())
        cfg.merge_from_dict({key.replace('__', '.'): value for key, value in options.items()})
        return cfg

    return load


def check(cfg, **arguments):
    own = {k: v for k, v in cfg.model.backbone.items() if k in ('arch', 'out_indices')}
    check_numbers(cfg, stages=WaveMLP(**own).stage_info, **arguments)


def weights(number):
    return dict(type='CrossEntropyLoss', use_sigmoid=False, class_weight=[1.0] * number)


RIGHT = [
    (CLASSIFIER, {}),
    (CLASSIFIER, dict(model__head__loss=weights(1000))),
    # Nobody asks for vectors of labels.
    (CLASSIFIER, dict(data_preprocessor__num_classes=5, model__train_cfg=None)),
    (CLASSIFIER, dict(val_evaluator=[dict(type='Accuracy', topk=(1, 1000))])),
    (DETECTOR, {}),
    (DETECTOR, dict(model__roi_head__bbox_head__loss_cls=weights(81))),
    (FPN, {}),
    (FPN, dict(model__decode_head__loss_decode=[weights(150)])),
    (UPERNET, {}),
    (UPERNET, dict(model__decode_head__in_index=[-4, -3, -2, -1])),
    # Heads that are not known may do as they like.
    (
        UPERNET,
        dict(model__decode_head__type='Mine', model__decode_head__loss_decode=weights(151)),
    ),
    (
        UPERNET,
        dict(train_dataloader__batch_size=1, model__decode_head__norm_cfg=dict(type='LN')),
    ),
    (UPERNET, dict(train_dataloader__batch_size=1, model__decode_head__pool_scales=(2, 3, 6))),
]
WRONG = [
    (
        CLASSIFIER,
        dict(model__head__num_classes=3, data_preprocessor__num_classes=3),
        r'^val_evaluator\S*\.topk=\(1, 5\): there are only 3 classes',
    ),
    (
        CLASSIFIER,
        dict(model__head__cal_acc=True, model__head__topk=(1, 2000)),
        r'^model\.head\.topk=\(1, 2000\): there are only 1000 classes',
    ),
    (
        CLASSIFIER,
        dict(model__head__loss=weights(999)),
        r'^model\.head\.loss\.class_weight has 999 numbers, .* expected are 1000$',
    ),
    (
        CLASSIFIER,
        dict(data_preprocessor__num_classes=5),
        r'^data_preprocessor\.num_classes is 5, and model\.head\.num_classes is 1000',
    ),
    (
        CLASSIFIER,
        dict(model__head__in_channels=256),
        r'^model\.head\.in_channels is 256, and the last map of the backbone has 512$',
    ),
    (
        CLASSIFIER,
        dict(model__backbone__in_channels=4),
        r'^model\.backbone\.in_channels is 4, and data_preprocessor\.mean .* of 3 channels$',
    ),
    (
        CLASSIFIER,
        {
            'data_preprocessor__mean': [127.5],
            'train_dataloader__dataset__pipeline__0__color_type': 'grayscale',
        },
        r'^model\.backbone\.in_channels is 3, and train_\S+ loads images of one channel',
    ),
    (
        DETECTOR,
        dict(model__neck__in_channels=[64, 128, 320, 500]),
        r'^model\.neck\.in_channels is \[64, .*500\], .* have \[64, 128, 320, 512\] channels$',
    ),
    (
        DETECTOR,
        dict(model__backbone__out_indices=(1, 2, 3)),
        r'^model\.neck\.in_channels is .* have \[128, 320, 512\] channels$',
    ),
    (
        DETECTOR,
        dict(model__rpn_head__in_channels=128),
        r'^model\.rpn_head\.in_channels is 128, and model\.neck\.out_channels is 256$',
    ),
    (
        DETECTOR,
        dict(model__roi_head__bbox_head__loss_cls=weights(80)),
        r'80 numbers, .* 80 classes and the background .* expected are 81$',
    ),
    (
        FPN,
        dict(model__decode_head__loss_decode=[weights(150), weights(2)]),
        r'^model\.decode_head\.loss_decode\.1\.class_weight has 2 numbers',
    ),
    (
        FPN,
        dict(model__decode_head__in_channels=[256, 256, 256, 128]),
        r'^model\.decode_head\.in_channels is .* of the neck have \[256, 256, 256, 256\]$',
    ),
    (
        UPERNET,
        dict(model__decode_head__in_channels=[64, 128, 320, 500]),
        r'^model\.decode_head\.in_channels is .* of the backbone have \[64, 128, 320, 512\]$',
    ),
    (
        UPERNET,
        dict(model__decode_head__in_index=[0, 1, 2, 4]),
        r'^model\.decode_head\.in_index=\[0, 1, 2, 4\]: there are 4 maps of the backbone',
    ),
    (
        UPERNET,
        dict(model__auxiliary_head__in_channels=512),
        r'^model\.auxiliary_head\.in_channels is 512, and the maps 2 of the backbone have 320$',
    ),
    (
        UPERNET,
        dict(train_dataloader__batch_size=0),
        r'^train_dataloader\.batch_size is 0, expected at least 1$',
    ),
    (
        UPERNET,
        dict(train_dataloader__num_workers=-1),
        r'^train_dataloader\.num_workers is -1, expected at least 0$',
    ),
    (
        UPERNET,
        dict(train_dataloader__batch_size=1),
        r'^train_dataloader\.batch_size is 1, and model\.decode_head has batch norms \(SyncBN\)',
    ),
]


@pytest.mark.parametrize(('path', 'options'), RIGHT)
def test_what_fits_passes(load, path, options):
    check(load(path, **options), splits=('train', 'test'))


@pytest.mark.parametrize(('path', 'options', 'message'), WRONG)
def test_what_does_not_fit(load, path, options, message):
    with pytest.raises(PreflightError, match=message) as caught:
        check(load(path, **options))
    assert '\n' not in str(caught.value)


def test_only_what_the_run_does_is_checked(load):
    cfg = load(UPERNET, train_dataloader__batch_size=1)
    check(cfg, splits=('test',))
    check(cfg, num_procs=2)  # the norms are synchronized
    cfg.model.decode_head.norm_cfg.type = 'BN'
    with pytest.raises(PreflightError, match='BN'):
        check(cfg, num_procs=2)
    cfg = load(CLASSIFIER, test_evaluator=dict(type='Accuracy', topk=2000))
    check(cfg)
    with pytest.raises(PreflightError, match=r'^test_evaluator\.topk=2000'):
        check(cfg, splits=('test',))


def test_the_processes_of_a_launcher_count(load, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    check(load(UPERNET, train_dataloader__batch_size=1))


def test_other_libraries_backbones_are_not_asked(load):
    cfg = load(UPERNET, model__decode_head__in_channels=[1, 2, 3, 4])
    check_numbers(cfg)
    cfg.model.neck = dict(type='Mine')
    check_numbers(cfg, stages=[SimpleNamespace(channels=64, stride=4)])


def test_the_check_of_a_config_asks_the_backbone(load):
    with pytest.raises(PreflightError, match=r'^model\.head\.in_channels is 256'):
        preflight(load(CLASSIFIER, model__head__in_channels=256))


ENDLESS = dict(type='InfiniteSampler', shuffle=True)


@pytest.mark.parametrize(
    ('path', 'loop'),
    [(CLASSIFIER, dict(by_epoch=True)), (DETECTOR, dict(type='EpochBasedTrainLoop'))],
)
def test_an_epoch_needs_a_sampler_that_ends(load, path, loop):
    cfg = load(path)
    cfg.train_dataloader.sampler = ENDLESS
    cfg.train_cfg = loop
    with pytest.raises(PreflightError, match=r'^train_dataloader\.sampler is Infin.*ends'):
        check_numbers(cfg)
    check_numbers(cfg, splits=('test',))
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=1)
    check_numbers(cfg)
    cfg.val_dataloader.sampler = ENDLESS
    with pytest.raises(PreflightError, match=r'^val_dataloader\.sampler is .*shuffle=False\)$'):
        check_numbers(cfg)


@pytest.mark.parametrize('workers', [0, 2])
def test_options_of_workers_without_workers(load, monkeypatch, workers):
    lines = []
    monkeypatch.setattr('mmengine.logging.print_log', lambda line, **_: lines.append(line))
    settings = dict(batch_size=1, num_workers=workers, persistent_workers=True, prefetch_factor=3)
    cfg = Config(dict(train_dataloader=settings, val_dataloader=None))
    switch_off_worker_options(cfg)
    kept = (cfg.train_dataloader.persistent_workers, cfg.train_dataloader.prefetch_factor)
    assert kept == ((True, 3) if workers else (False, None))
    assert len(lines) == (0 if workers else 2)
    # What torch says to it.
    from torch.utils.data import DataLoader

    DataLoader([1], **cfg.train_dataloader)
    if not workers:
        with pytest.raises(ValueError, match=r'num_workers > 0|multiprocessing'):
            DataLoader([1], **settings)
