"""Test-time augmentation of whole runs, on pictures that come with their mirror images."""

import json
import re
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
from mmwave.apis.tta import check_tta, use_tta
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


@pytest.fixture(scope='module')
def plain(task):
    return predictions(task[1])


@pytest.fixture(scope='module')
def merged(task):
    return predictions(task[1], tta=True)


@pytest.fixture(scope='module')
def merging(task):
    """The path of a config whose model is the one that merges."""
    cfg = Config.fromfile(task[1] / 'config.py')
    use_tta(cfg)
    cfg.dump(str(task[1] / 'merging.py'))
    return 'merging.py'


def same(name: str, found: dict, wanted: dict, tolerance: float = 0.0) -> bool:
    assert found.keys() == wanted.keys() == set(NAMES)
    pairs = [(result(name, found[image]), result(name, wanted[image])) for image in NAMES]
    close = [np.isclose(*pair, rtol=tolerance, atol=tolerance).mean() for pair in pairs]
    return min(close) > (0.99 if tolerance else 1 - 1e-9)


def test_a_single_view_changes_nothing(task, plain, merged):
    name, folder = task
    found = predictions(folder, tta=True, cfg_options=identity(name, folder))
    assert same(name, found, plain, 1e-5)
    assert not same(name, found, merged, 1e-5)


def test_a_mirror_image_gets_the_mirrored_result(task, plain, merged):
    for image in NAMES[::2]:
        for found, alike in ((plain, False), (merged, True)):
            here = result(task[0], found[image])
            there = result(task[0], found[f'{image}_mirrored'], mirrored=True)
            assert here.shape == there.shape
            assert (np.mean(np.isclose(here, there, rtol=1e-3, atol=1e-3)) > 0.99) == alike


def test_scores_are_the_mean_over_views_and_labels_follow(task, plain, merged):
    if task[0] != 'mmpretrain':
        pytest.skip('other tasks merge labels or boxes')
    for image in NAMES[::2]:
        pair = [plain[image]['pred_score'], plain[f'{image}_mirrored']['pred_score']]
        wanted = torch.stack(pair).mean(0)
        assert not torch.allclose(*pair, atol=1e-3)
        for view in (image, f'{image}_mirrored'):
            torch.testing.assert_close(merged[view]['pred_score'], wanted, atol=1e-5, rtol=0)
            assert merged[view]['pred_label'].item() == wanted.argmax().item()


def test_a_config_with_the_merging_model_and_weights_saved_from_it(task, merged, merging):
    name, folder = task
    state = torch.load(folder / 'weights.pth')['state_dict']
    torch.save({f'module.{k}': v for k, v in state.items()}, folder / 'merging.pth')
    assert same(name, predictions(folder, merging, 'merging.pth'), merged)
    assert same(name, predictions(folder, 'config.py', 'merging.pth', tta=True), merged)


def test_a_deployed_checkpoint(task, merged, merging):
    name, folder = task
    paths = [str(folder / file) for file in (merging, 'weights.pth', 'deployed.pth')]
    assert deploy_checkpoint(*paths).options == ('model.module.backbone.deploy=True',)
    assert not any(k.startswith('module.') for k in read_checkpoint(paths[2])['state_dict'])
    options = {'model.backbone.deploy': True}
    found = predictions(folder, 'config.py', 'deployed.pth', tta=True, cfg_options=options)
    assert same(name, found, merged, 1e-3)


def test_the_tool_and_its_summary(task, merging):
    """The pictures are drawn as well, which mmpretrain's hook does for plain batches alone."""
    name, folder = task
    if name != 'mmpretrain':
        pytest.skip('as the others do')
    drawn = folder / 'drawn'
    command = [sys.executable, 'tools/test.py', folder / 'config.py', folder / 'weights.pth']
    options = ['--tta', '--show-dir', drawn, '--work-dir', folder / 'work']
    done = subprocess.run(
        [*map(str, command), *map(str, options)], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert re.search(r'model +\w+TTA\w* of \w+, backbone WaveMLP', done.stdout)
    assert re.search(r'loaded (\d+) of \1 tensors', done.stdout)
    assert all(any(image in path.name for path in drawn.rglob('*.png')) for image in NAMES)


@pytest.mark.parametrize('merging', [False, True])
def test_masks_are_not_merged(tmp_path, merging):
    (tmp_path / 'a.pth').write_bytes(b'')
    config = str(ROOT / 'configs/wavemlp/wavemlp-t-dw_mask-rcnn_1x_coco.py')
    if merging:
        cfg = Config.fromfile(config)
        use_tta(cfg)
        config = str(tmp_path / 'merging.py')
        cfg.dump(config)
    message = r'merges boxes only, and roi_head\.mask_head of the MaskRCNN predicts masks'
    with pytest.raises(UsageError, match=message):
        prepare_testing(config, str(tmp_path / 'a.pth'), tta=not merging)


def test_what_cannot_be_merged_or_trained(tmp_path):
    (tmp_path / 'a.pth').write_bytes(b'')
    leaf = ROOT / 'configs/wavemlp/wavemlp-t_in1k.py'
    config = tmp_path / 'config.py'
    config.write_text(
        f"""_base_ = '{leaf}'
model = dict(_delete_=True, type='AverageClsScoreTTA', module={{{{_base_.model}}}})
"""
    )
    with pytest.raises(UsageError, match='AverageClsScoreTTA is for tests and cannot be trained'):
        prepare_training(str(config))
    for tta, message in ((False, 'gives one view of an image'), (True, 'data_root')):
        with pytest.raises(UserError, match=message):
            prepare_testing(str(config), str(tmp_path / 'a.pth'), tta=tta)
    with pytest.raises(UsageError, match=r'default_scope is None, expected one of mmdet, mmpre'):
        use_tta(Config(dict(model=dict(type='Toy'))))


def pipeline_of(leaf: str) -> list:
    cfg = Config.fromfile(ROOT / f'configs/wavemlp/wavemlp-{leaf}.py')
    cfg.pop('tta_pipeline', None)
    use_tta(cfg)
    assert cfg.val_dataloader.dataset.pipeline[-1].type != 'TestTimeAug'
    return cfg.test_dataloader.dataset.pipeline


def test_views_by_default():
    """The pipeline's own steps; the flip in front of labels and of padding."""
    *before, views = pipeline_of('t_in1k')
    assert [step.type for step in before] == ['LoadImageFromFile', 'ResizeEdge', 'CenterCrop']
    flips = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
    assert views == dict(type='TestTimeAug', transforms=[flips, [dict(type='PackInputs')]])
    *before, views = pipeline_of('t_retinanet_1x_coco')
    assert [step.type for step in before] == ['LoadImageFromFile', 'Resize']
    kinds = [[step.type for step in choices] for choices in views.transforms]
    assert kinds == [['RandomFlip'] * 2, ['LoadAnnotations'], ['PackDetInputs']]
    keys = views.transforms[-1][0].meta_keys
    assert keys[-3:] == ('scale_factor', 'flip', 'flip_direction')
    *before, views = pipeline_of('t_sem-fpn_40k_ade20k-512x512')
    assert [step.type for step in before] == ['LoadImageFromFile']
    resizes, found, *rest = views.transforms
    assert [step.scale for step in resizes] == [
        *((1024, 256), (1536, 384), (2048, 512), (2560, 640), (3072, 768), (3584, 896)),
    ]
    assert all(step.keep_ratio for step in resizes)
    assert found == flips
    assert rest == [[dict(type='LoadAnnotations')], [dict(type='PackSegInputs')]]


def test_sizes_without_a_resize_or_by_factors():
    plain = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]
    for resize, factors in (
        ([], [0.5, 0.75, 1.0, 1.25, 1.5, 1.75]),
        ([dict(type='Resize', scale_factor=2.0)], [1.0, 1.5, 2.0, 2.5, 3.0, 3.5]),
    ):
        dataset = dict(pipeline=[plain[0], *resize, plain[1]])
        several = dict(type='ConcatDataset', datasets=[dataset, dict(pipeline=plain)])
        loader = dict(dataset=several)
        cfg = dict(default_scope='mmseg', model=dict(type='A'), test_dataloader=loader)
        cfg = Config(cfg)
        use_tta(cfg)
        first, second = (d.pipeline for d in cfg.test_dataloader.dataset.datasets)
        assert [step.scale_factor for step in first[1].transforms[0]] == factors
        assert len(second) == 2
        assert second[0] == plain[0]


def test_the_model_s_own_preprocessing_stays(tmp_path):
    """mmengine would have the config's replace it, within the merging model alone."""
    (tmp_path / 'a.pth').write_bytes(b'')
    own, other = dict(type='ClsDataPreprocessor', mean=[1.0]), dict(mean=[2.0])
    model = dict(type='ImageClassifier', data_preprocessor=own)
    cfg = Config(dict(default_scope='mmpretrain', model=model, data_preprocessor=other))
    use_tta(cfg)
    check_tta(cfg)
    assert cfg.model.data_preprocessor is None
    assert cfg.model.module.data_preprocessor == own
    del cfg.model.module['data_preprocessor'], cfg.model['data_preprocessor']
    check_tta(cfg)
    assert 'data_preprocessor' not in cfg.model
