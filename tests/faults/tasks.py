"""Runs of seconds of the three tasks, with everything random switched on, on images made here."""

import json
from pathlib import Path

import cv2
import numpy as np

from tests.contracts import ROOT

TASKS = ('classification', 'detection', 'segmentation')
NUM_IMAGES = 12
SIDE = 64
# Widths and depths of a Wave-MLP of seconds.
_ARCH = "dict(_delete_=True, depths=[1, 1, 1, 1], dims=[8, 8, 16, 16], norm='BN')"
_LEAVES = {
    'classification': 'wavemlp-t_in1k.py',
    'detection': 'wavemlp-t_retinanet_1x_coco.py',
    'instances': 'wavemlp-t_mask-rcnn_1x_coco.py',
    'segmentation': 'wavemlp-t_sem-fpn_40k_ade20k-512x512.py',
}
_TEXT = {
    'classification': """
model = dict(
    backbone=dict(arch={arch}, drop_path_rate=0.2),
    head=dict(in_channels=16, num_classes=2),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]),
)
data_preprocessor = dict(num_classes=2)
common = dict(data_root='{data}', metainfo=dict(classes=['a', 'b']))
train_dataset = dict(
    split='train',
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='RandomResizedCrop', scale=32),
        dict(type='RandomFlip', prob=0.5, direction='horizontal'),
        dict(type='RandomErasing', erase_prob=0.5, mode='rand'),
        dict(type='PackInputs'),
    ],
    **common,
)
val_dataset = dict(
    split='val', pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')], **common
)
val_evaluator = dict(topk=1)
test_evaluator = val_evaluator
""",
    'detection': """
model = dict(
    backbone=dict(arch={arch}, drop_path_rate=0.2, init_cfg=None),
    {heads}
)
common = dict(data_root='{data}', metainfo=dict(classes=('a', 'b')), data_prefix=dict(img=''))
train_dataset = dict(
    ann_file='boxes.json',
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask={masks}),
        dict(type='PhotoMetricDistortion'),
        dict(type='RandomResize', scale=({side}, {side}), ratio_range=(0.8, 1.2), keep_ratio=True),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs'),
    ],
    **common,
)
val_dataset = dict(ann_file='boxes.json', **common)
val_evaluator = dict(ann_file='{data}/boxes.json')
test_evaluator = val_evaluator
""",
    'segmentation': """
norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    backbone=dict(arch={arch}, drop_path_rate=0.2, init_cfg=None),
    neck=dict(in_channels=[8, 8, 16, 16], out_channels=8),
    decode_head=dict(in_channels=[8, 8, 8, 8], channels=8, num_classes=3, norm_cfg=norm_cfg),
)
sync_bn = None
common = dict(
    type='BaseSegDataset',
    data_root='{data}',
    metainfo=dict(classes=('a', 'b', 'c')),
    data_prefix=dict(_delete_=True, img_path='train/a', seg_map_path='maps'),
    img_suffix='.png',
)
train_dataset = dict(
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='RandomCrop', crop_size=(48, 48), cat_max_ratio=0.75),
        dict(type='RandomFlip', prob=0.5),
        dict(type='PhotoMetricDistortion'),
        dict(type='PackSegInputs'),
    ],
    **common,
)
val_dataset = dict(
    pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ],
    **common,
)
""",
}
_TEXT['instances'] = _TEXT['detection']
_HEADS = {
    'detection': """neck=dict(in_channels=[8, 16, 16], out_channels=8),
    bbox_head=dict(num_classes=2, in_channels=8, feat_channels=8, stacked_convs=1),""",
    'instances': """neck=dict(in_channels=[8, 8, 16, 16], out_channels=8),
    rpn_head=dict(in_channels=8, feat_channels=8),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=8),
        bbox_head=dict(in_channels=8, fc_out_channels=16, num_classes=2),
        mask_roi_extractor=dict(out_channels=8),
        mask_head=dict(num_convs=1, in_channels=8, conv_out_channels=8, num_classes=2),
    ),""",
}
_RUN = """
custom_imports = dict(imports=['tests.faults.injected'], allow_failed_imports=False)
custom_hooks = [dict(type='EMAHook', momentum=0.1), dict(type='FaultHook')]
train_dataloader = dict(
    batch_size={batch},
    num_workers={workers},
    persistent_workers={persistent},
    # An InfiniteSampler's epoch has no end.
    sampler=dict(_delete_=True, type='{sampler}', shuffle=True),
    dataset=train_dataset,
)
val_dataloader = dict(
    batch_size={batch}, num_workers=0, persistent_workers=False, dataset=val_dataset
)
test_dataloader = val_dataloader
optim_wrapper = dict(
    _delete_=True,
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4),
    dict(
        type='CosineAnnealingLR',
        by_epoch={by_epoch},
        begin=0,
        T_max={length},
        {convert}
    ),
]
train_cfg = dict(_delete_=True, {train_cfg})
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(by_epoch={by_epoch}, interval={interval}, max_keep_ckpts=2),
)
log_processor = dict(by_epoch={by_epoch})
randomness = dict(seed=0)
auto_scale_lr = dict(base_batch_size=8)
# mmengine keeps visualizers by name for as long as a process runs.
visualizer = dict(name='{name}')
"""


def write_task(
    folder: Path,
    task: str = 'classification',
    *,
    by_epoch: bool = True,
    length: int | None = None,
    interval: int | None = None,
    batch: int = 2,
    workers: int = 0,
    num_images: int = NUM_IMAGES,
) -> Path:
    """Write images, annotations and a config of one task; return the config's path.

    Args:
        folder: the images go to ``data`` in it.
        task: of :data:`TASKS`, or ``'instances'``: boxes and masks.
        by_epoch: count epochs, else iterations.
        length: epochs or iterations.
        interval: of checkpoints and validations, in the same unit.
        batch: images a process.
        workers: of the training's data loader, persistent ones.
        num_images: in training and in validation.
    """
    data = folder / 'data'
    _write_data(data, num_images)
    length = length or (3 if by_epoch else 18)
    interval = interval or (1 if by_epoch else 6)
    loop = (
        f"type='EpochBasedTrainLoop', max_epochs={length}, val_interval={interval}"
        if by_epoch
        else f"type='IterBasedTrainLoop', max_iters={length}, val_interval={interval}"
    )
    text = f"_base_ = '{ROOT / 'configs/wavemlp' / _LEAVES[task]}'\n"
    text += _TEXT[task].format(
        arch=_ARCH,
        data=data,
        side=SIDE,
        heads=_HEADS.get(task),
        masks=task == 'instances',
    )
    text += _RUN.format(
        batch=batch,
        workers=workers,
        persistent=workers > 0,
        sampler='DefaultSampler' if by_epoch else 'InfiniteSampler',
        by_epoch=by_epoch,
        length=length,
        interval=interval,
        convert='convert_to_iter_based=True,' if by_epoch else '',
        train_cfg=loop,
        name=folder.name,
    )
    config = folder / 'tiny.py'
    config.write_text(text)
    return config


def _write_data(data: Path, num_images: int) -> None:
    """Write noise, beside it a box for each image and a label map for those of one folder."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for split in ('train', 'val'):
        for index in range(num_images):
            for name in ('a', 'b') if split == 'train' else ('ab'[index % 2],):
                path = data / split / name / f'{index}.png'
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8))
    (data / 'maps').mkdir(exist_ok=True)
    for index in range(num_images):
        labels = rng.integers(0, 3, (SIDE // 8, SIDE // 8), dtype=np.uint8)
        labels = np.kron(labels, np.ones((8, 8), np.uint8))
        cv2.imwrite(str(data / 'maps' / f'{index}.png'), labels)
        file_name = f'train/a/{index}.png'
        images.append(dict(id=index, file_name=file_name, width=SIDE, height=SIDE))
        x, y = rng.integers(0, SIDE // 2, 2).tolist()
        half = SIDE // 2
        box = [x, y, half, half]
        outline = [x, y, x + half, y, x + half, y + half, x, y + half]
        annotations.append(
            dict(
                id=index + 1,
                image_id=index,
                category_id=index % 2 + 1,
                bbox=box,
                segmentation=[outline],
                area=half * half,
                iscrowd=0,
            )
        )
    categories = [dict(id=1, name='a'), dict(id=2, name='b')]
    document = dict(images=images, annotations=annotations, categories=categories)
    (data / 'boxes.json').write_text(json.dumps(document))
