"""Every config: it loads, is named right, builds, fits its backbone and trains."""

import copy
import importlib
import math
import re
from pathlib import Path

import mmcv.ops
import mmengine.registry
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, DefaultScope, Registry

from mmwave.apis.arguments import check_arguments
from mmwave.apis.consistency import check_numbers
from mmwave.apis.options import merge, unused_settings
from mmwave.apis.values import Typed
from mmwave.engine.cpu import adapt_to_cpu
from mmwave.models import MLPBackbone
from mmwave.structures import StageInfo
from mmwave.zoo.names import LeafName
from tests.contracts import ROOT
from tests.families import QUICK_LEAVES

LEAVES = sorted(p for p in (ROOT / 'configs').glob('*/*.py') if p.parent.name != '_base_')
SCOPES = {'in1k': 'mmpretrain', 'coco': 'mmdet', 'ade20k': 'mmseg', 'cityscapes': 'mmseg'}
METHODS = {'retinanet', 'mask-rcnn', 'cascade-mask-rcnn', 'sem-fpn', 'upernet'}
SCHEDULES = {'1x', '3x', '40k', '80k', '160k'}
NAME = re.compile(
    r'(?P<family>mlp-mixer|[a-z]+)-(?P<variant>[a-z0-9]+(-dw)?)'
    r'(_(?P<method>[a-z-]+)_(?P<schedule>[0-9]+[xk]))?'
    r'_(?P<data>[a-z0-9]+)(-(?P<recipe>mindcv))?(-(?P<height>\d+)x(?P<width>\d+))?'
)
# The quick tests build one leaf of each kind of model; the others are slow.
every_leaf = pytest.mark.parametrize('leaf', LEAVES, ids=lambda p: p.stem)
quick_and_slow = pytest.mark.parametrize(
    'leaf',
    [
        pytest.param(p, id=p.stem, marks=() if p.stem in QUICK_LEAVES else pytest.mark.slow)
        for p in LEAVES
    ],
)


def load(leaf: Path) -> Config:
    cfg = Config.fromfile(leaf)
    cfg.model.backbone.pop('init_cfg', None)  # no weights at hand
    return cfg


def build(cfg: Config) -> BaseModel:
    torch.manual_seed(0)
    model_cfg = cfg.model.copy()
    if 'data_preprocessor' in cfg:
        model_cfg.setdefault('data_preprocessor', cfg.data_preprocessor)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(model_cfg)
    return revert_sync_batchnorm(model)  # as a runner does in a single process


def test_quick_leaves_exist():
    assert {p.stem for p in LEAVES} >= QUICK_LEAVES


@every_leaf
def test_name_says_what_is_inside(leaf):
    match = NAME.fullmatch(leaf.stem)
    assert match, leaf.stem
    cfg = load(leaf)
    assert match['family'].replace('-', '_') == leaf.parent.name
    assert cfg.model.backbone.arch == match['variant']
    assert cfg.model.backbone.type.lower() == f'mmwave.{match["family"].replace("-", "")}'
    parsed = LeafName.parse(leaf.stem)
    assert (parsed.family, parsed.variant) == (match['family'], match['variant'])
    assert cfg.default_scope == SCOPES[match['data']]
    if match['method']:
        assert match['method'] in METHODS
        assert match['schedule'] in SCHEDULES
        length = int(match['schedule'][:-1])
        if match['schedule'].endswith('k'):
            assert cfg.train_cfg.max_iters == 1000 * length
            assert max(s.end for s in cfg.param_scheduler) == 1000 * length
        else:
            assert cfg.train_cfg.max_epochs == 12 * length
    if match['height']:
        crop = next(t for t in cfg.train_dataloader.dataset.pipeline if t.type == 'RandomCrop')
        assert tuple(crop.crop_size) == (int(match['height']), int(match['width']))


@every_leaf
def test_is_short_and_two_levels_deep(leaf):
    text = leaf.read_text()
    assert len(text.splitlines()) <= 30
    bases = re.findall(r"'(\.\./_base_/[a-z]+/[\w-]+\.py)'", text)
    assert [Path(b).parent.name for b in bases] == ['models', 'datasets', 'schedules', 'runtime']
    assert '_delete_' not in text
    for base in bases:
        assert '_base_ ' not in (leaf.parent / base).read_text()
    assert 'backbone' not in Config.fromfile(leaf.parent / bases[0]).model


def types_of(node, path='cfg'):
    """Every ``type`` string below a node with the path it stands at."""
    if isinstance(node, dict):
        if isinstance(node.get('type'), str):
            yield path, node['type']
        for key, value in node.items():
            yield from types_of(value, f'{path}.{key}')
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from types_of(value, f'{path}.{i}')


@every_leaf
def test_every_type_resolves_in_the_scope(leaf):
    cfg = load(leaf)
    scope = cfg.default_scope
    rooms = [mmengine.registry, importlib.import_module(f'{scope}.registry')]
    registries = [v for room in rooms for v in vars(room).values() if isinstance(v, Registry)]
    found = list(types_of(cfg._cfg_dict.to_dict()))
    assert len(found) > 20
    with DefaultScope.overwrite_default_scope(scope):
        for path, name in found:
            if hasattr(mmcv.ops, name):  # RoIAlign and nms, which heads look up there themselves
                continue
            assert any(_get(r, name, scope) for r in registries), f'{path}: {name}'


def _get(registry: Registry, name: str, scope: str):
    with registry.switch_scope_and_registry(scope) as local:
        return local.get(name)


@every_leaf
def test_validation_and_test_are_both_written(leaf):
    cfg = load(leaf)
    assert cfg.val_dataloader == cfg.test_dataloader
    assert cfg.val_evaluator == cfg.test_evaluator
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        # Workers that are started anew each epoch draw the same augmentations each epoch.
        assert loader.persistent_workers
    assert cfg.auto_scale_lr.base_batch_size % cfg.train_dataloader.batch_size == 0


@every_leaf
def test_pretrained_weights_are_set_in_one_place(leaf, monkeypatch):
    if NAME.fullmatch(leaf.stem)['data'] == 'in1k':
        assert 'init_cfg' not in Config.fromfile(leaf).model.backbone
        return
    match = NAME.fullmatch(leaf.stem)
    name = f'{match["family"]}-{match["variant"]}_in1k.pth'
    assert Config.fromfile(leaf).model.backbone.init_cfg.checkpoint == f'checkpoints/{name}'
    assert (leaf.parent / name).with_suffix('.py').is_file()
    monkeypatch.setenv('MMWAVE_CHECKPOINTS', 'elsewhere')
    assert Config.fromfile(leaf).model.backbone.init_cfg.checkpoint == f'elsewhere/{name}'


def levels(neck: dict, stages: tuple[StageInfo, ...]) -> list[tuple[int, float]]:
    """Channels and stride of each of a neck's outputs; asserts that it fits what it is given."""
    channels = [stage.channels for stage in stages]
    strides = [stage.stride for stage in stages]
    if neck.type == 'Feature2Pyramid':  # one map a scale
        assert channels == [neck.embed_dim] * 4
        scales = [4, 2, 1, 0.5]
        return [(neck.embed_dim, s / k) for s, k in zip(strides, scales, strict=True)]
    if neck.type == 'FPN':
        assert list(neck.in_channels) == channels
        assert strides == [strides[0] * 2**i for i in range(len(strides))]
        assert neck.get('start_level', 0) == 0
    else:
        assert neck.type == 'mmwave.SimpleFeaturePyramid'
        assert [neck.in_channels] == channels
        strides = [strides[0] / k for k in neck.get('scales', (4, 2, 1, 0.5))]
    while len(strides) < neck.get('num_outs', 0):
        strides.append(2 * strides[-1])
    return [(neck.get('out_channels', 256), stride) for stride in strides]


def assert_checks_before_a_run_pass(cfg: Config, stages: tuple[StageInfo, ...]) -> None:
    """Neither the config nor options that users give are refused, or warned of."""
    cfg = Config(copy.deepcopy(cfg._cfg_dict))
    assert unused_settings(cfg) == []
    options = {
        'test_dataloader.dataset.data_root': '/my data/a,b',
        'train_dataloader.batch_size': '4',
        'train_cfg.val_interval': '2',
        'model.backbone.init_cfg': 'None',
        'optim_wrapper.optimizer.lr': '1e-4',
        'default_hooks.checkpoint.interval': '3',
        'randomness.seed': '1',
        'find_unused_parameters': 'True',
    }
    if 'checkpoint' not in cfg.get('default_hooks', {}):  # mmengine's own is replaced, not changed
        options['default_hooks.checkpoint.type'] = 'CheckpointHook'
    with pytest.MonkeyPatch.context() as patch:
        warned: list[str] = []
        patch.setattr('mmwave.apis.options._warn', warned.append)
        merge(cfg, {key: Typed(value) for key, value in options.items()})
    assert warned == []
    assert cfg.test_dataloader.dataset.data_root == '/my data/a,b'
    check_numbers(cfg, splits=('train', 'test'), stages=stages)
    check_arguments(cfg)


@pytest.mark.parametrize('path', sorted(ROOT.glob('projects/*/configs/*.py')), ids=lambda p: p.stem)
def test_checks_before_a_run_pass_in_projects(path):
    cfg = load(path)
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        stages = MODELS.build(cfg.model.backbone).stage_info
    assert_checks_before_a_run_pass(cfg, stages)


@every_leaf
def test_widths_and_strides_are_the_backbone_s(leaf):
    cfg = load(leaf)
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        stages = MODELS.build(cfg.model.backbone).stage_info
    assert_checks_before_a_run_pass(cfg, stages)
    model = cfg.model
    if cfg.default_scope == 'mmpretrain':
        assert [model.head.in_channels] == [stage.channels for stage in stages]
        return
    maps = [(stage.channels, stage.stride) for stage in stages]
    if 'neck' in model:
        maps = levels(model.neck, stages)
    channels, strides = (list(column) for column in zip(*maps, strict=True))
    if model.type == 'RetinaNet':
        assert model.bbox_head.anchor_generator.strides == strides
        assert channels == [model.bbox_head.in_channels] * 5
        if model.neck.type == 'FPN':
            assert model.neck.add_extra_convs == 'on_input'
    elif model.type in ('MaskRCNN', 'CascadeRCNN'):
        assert model.rpn_head.anchor_generator.strides == strides
        for extractor in (model.roi_head.bbox_roi_extractor, model.roi_head.mask_roi_extractor):
            assert extractor.featmap_strides == strides[:4]
            assert [extractor.out_channels] * 5 == channels
        assert [model.rpn_head.in_channels] * 5 == channels
    else:
        assert list(model.decode_head.in_channels) == channels
        assert model.decode_head.in_index == [0, 1, 2, 3]
    if model.get('decode_head', {}).get('type') == 'FPNHead':
        # It asks for ratios alone, by a logarithm that is cut off: 28 / 3.5 would give 2.
        stated = model.decode_head.feature_strides
        assert [s / stated[0] for s in stated] == [s / strides[0] for s in strides]
        assert [math.log2(s).is_integer() for s in stated] == [True] * 4
    if 'auxiliary_head' in model:
        index = model.auxiliary_head.in_index
        assert model.auxiliary_head.in_channels == channels[index]
        assert strides[index] in (14, 16)


# Backbones that fill up the last patches of an image; their maps cover more than the image then.
@pytest.mark.parametrize(
    'leaf',
    [
        leaf
        for leaf in LEAVES
        if leaf.parent.name in ('eamlp', 'gmlp', 'mlp_mixer', 'resmlp', 'vip')
        and not leaf.stem.endswith('_in1k')
    ],
    ids=lambda p: p.stem,
)
def test_patches_fill_what_images_are_padded_to(leaf):
    """Else boxes and logits of the filled map would be squeezed into the image."""
    cfg = load(leaf)
    with torch.device('meta'), DefaultScope.overwrite_default_scope(cfg.default_scope):
        step = MODELS.build(cfg.model.backbone).stage_info[-1].stride
    own = cfg.model.data_preprocessor
    if cfg.default_scope == 'mmdet':
        divisors = [own.pad_size_divisor]
    else:
        divisors = [own.size_divisor, own.test_cfg.size_divisor]
    assert [divisor % step for divisor in divisors] == [0] * len(divisors)


@every_leaf
def test_images_are_scaled_as_in_pretraining(leaf):
    match = NAME.fullmatch(leaf.stem)
    cfg = load(leaf)
    own = cfg.get('data_preprocessor') or cfg.model.data_preprocessor
    pretraining = load(leaf.parent / f'{match["family"]}-{match["variant"]}_in1k.py')
    halves = match['family'] in ('gmlp', 'mlp-mixer')
    assert list(own.mean) == ([127.5] * 3 if halves else [123.675, 116.28, 103.53])
    assert (own.mean, own.std) == (
        pretraining.data_preprocessor.mean,
        pretraining.data_preprocessor.std,
    )


def tiny_batch(cfg: Config) -> dict:
    """Two images with labels, as the task's data loader would collate them."""
    torch.manual_seed(1)
    inputs = [torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8) for _ in range(2)]
    return {'inputs': inputs, 'data_samples': [SAMPLES[cfg.default_scope](cfg) for _ in inputs]}


def classification_sample(cfg):
    from mmpretrain.structures import DataSample

    return DataSample().set_gt_label(3)


def detection_sample(cfg):
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    masks = torch.zeros(2, 64, 96, dtype=torch.uint8)
    masks[0, 8:40, 10:50] = 1
    masks[1, 20:60, 40:90] = 1
    boxes = torch.tensor([[10.0, 8, 50, 40], [40, 20, 90, 60]])
    gt = InstanceData(
        bboxes=boxes, labels=torch.tensor([0, 7]), masks=BitmapMasks(masks.numpy(), 64, 96)
    )
    meta = dict(img_shape=(64, 96), ori_shape=(64, 96), pad_shape=(64, 96), scale_factor=(1.0, 1.0))
    sample = DetDataSample(gt_instances=gt, metainfo=meta)
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), labels=torch.zeros(0), masks=BitmapMasks([], 64, 96)
    )
    return sample


def segmentation_sample(cfg):
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    labels = torch.randint(0, cfg.model.decode_head.num_classes, (1, 64, 96))
    meta = dict(img_shape=(64, 96), ori_shape=(64, 96))
    return SegDataSample(gt_sem_seg=PixelData(data=labels), metainfo=meta)


SAMPLES = {
    'mmpretrain': classification_sample,
    'mmdet': detection_sample,
    'mmseg': segmentation_sample,
}


@quick_and_slow
def test_a_step_gives_every_parameter_a_gradient(leaf):
    """What DDP demands without ``find_unused_parameters``."""
    cfg = load(leaf)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg).train()
        data = model.data_preprocessor(tiny_batch(cfg), training=True)
        losses = model(**data, mode='loss')
        loss, log = model.parse_losses(losses)
    loss.backward()
    assert all(torch.as_tensor(v).isfinite().all() for v in log.values())
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without
    assert isinstance(model.backbone, MLPBackbone)


@pytest.mark.parametrize('method', ['retinanet', 'mask-rcnn'])
def test_detectors_train_in_bfloat16_on_the_cpu(method):
    """mmcv's CPU kernels know no bfloat16: proposals and regions are where it would show."""
    cfg = load(ROOT / f'configs/wavemlp/wavemlp-t-dw_{method}_1x_coco.py')
    cfg.optim_wrapper.type = 'AmpOptimWrapper'
    adapt_to_cpu(cfg, 'none')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = build(cfg).train()
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        log = model.train_step(tiny_batch(cfg), wrapper)
    assert all(torch.as_tensor(v).isfinite().all() for v in log.values())
    assert not [n for n, p in model.named_parameters() if torch.equal(p, before[n])]


@quick_and_slow
def test_predicts_on_an_image_of_odd_size(leaf):
    cfg = load(leaf)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = build(cfg).eval()
        batch = tiny_batch(cfg)
        batch = {
            'inputs': [batch['inputs'][0][:, :63, :91]],
            'data_samples': batch['data_samples'][:1],
        }
        batch['data_samples'][0].set_metainfo(
            dict(img_shape=(63, 91), ori_shape=(63, 91), pad_shape=(63, 91))
        )
        with torch.no_grad():
            (sample,) = model.test_step(batch)
    if cfg.default_scope == 'mmseg':
        assert sample.pred_sem_seg.shape == (63, 91)
    elif cfg.default_scope == 'mmdet':
        assert sample.pred_instances.scores.isfinite().all()
    else:
        assert sample.pred_score.shape == (1000,)


def test_windows_fill_the_crops_of_repmlpnet_segmentors():
    leaves = [p for p in LEAVES if NAME.fullmatch(p.stem)['height'] and 'repmlpnet' in p.stem]
    assert len(leaves) >= 7
    for leaf in leaves:
        cfg = load(leaf)
        with torch.device('meta'):
            backbone = MODELS.build(dict(cfg.model.backbone, grid_mode='strict'))
        (crop,) = [t for t in cfg.train_dataloader.dataset.pipeline if t.type == 'RandomCrop']
        backbone.size_constraint.check(*crop.crop_size)


def test_the_readme_s_window_padding_is_right():
    row = re.compile(r'\| (\d+) × (\d+)' + r' \| (\d+) × (\d+) \| ([\d.]+) ×' * 2 + r' \|')
    rows = row.findall((ROOT / 'configs/repmlpnet/README.md').read_text())
    assert len(rows) == 4
    for height, width, *computed in rows:
        sides = int(height), int(width)
        for window, (high, wide, ratio) in zip(
            (256, 224), (computed[:3], computed[3:]), strict=True
        ):
            padded = [math.ceil(side / window) * window for side in sides]
            assert [int(high), int(wide)] == padded
            assert ratio == f'{math.prod(padded) / math.prod(sides):.2f}'


def test_detectors_see_many_scales_and_crops(monkeypatch):
    from mmdet.registry import TRANSFORMS
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks

    cfg = load(ROOT / 'configs/asmlp/asmlp-t_cascade-mask-rcnn_3x_coco.py')
    steps = cfg.train_dataloader.dataset.pipeline[2:]  # behind the loading
    with DefaultScope.overwrite_default_scope('mmdet'):
        pipeline = [TRANSFORMS.build(step) for step in steps]
    rng = np.random.default_rng(0)
    seeded = np.random.RandomState(0)
    for name in ('rand', 'randint', 'choice', 'uniform', 'random'):
        monkeypatch.setattr(np.random, name, getattr(seeded, name))
    sides = set()
    for _ in range(12):
        done = dict(
            img=rng.integers(0, 256, (300, 400, 3), dtype=np.uint8),
            img_shape=(300, 400),
            ori_shape=(300, 400),
            gt_bboxes=HorizontalBoxes(np.array([[40.0, 50, 350, 260]], dtype=np.float32)),
            gt_bboxes_labels=np.array([3]),
            gt_ignore_flags=np.array([False]),
            gt_masks=BitmapMasks(np.ones((1, 300, 400), dtype=np.uint8), 300, 400),
            img_id=0,
            img_path='',
        )
        for step in pipeline:
            done = step(done)
        height, width = done['inputs'].shape[1:]
        sides.add(min(height, width))
        assert 480 <= min(height, width) <= 800
        assert max(height, width) <= 1333
        assert done['data_samples'].gt_instances.masks.masks.shape[1:] == (height, width)
    assert len(sides) > 4
