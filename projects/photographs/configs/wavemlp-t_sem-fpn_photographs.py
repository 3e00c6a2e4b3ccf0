"""Semantic FPN on Wave-MLP-T, from scratch, fitted to three photographs."""

_base_ = [
    '../../../configs/_base_/models/sem-fpn.py',
    '../../../configs/_base_/datasets/ade20k_512x512.py',
    '../../../configs/_base_/schedules/sem-fpn_adamw_40k.py',
    '../../../configs/_base_/runtime/mmseg.py',
]

data_root = 'data/photographs'
# The classes of prepare.py.
metainfo = dict(
    classes=(
        *(
            'background',
            'person',
            'flag',
            'space shuttle',
            'helmet',
            'cat',
            'cup',
            'saucer',
            'spoon',
        ),
    ),
    palette=[
        *([70, 70, 70], [213, 94, 0], [0, 114, 178], [240, 228, 66], [204, 121, 167]),
        *([0, 158, 115], [86, 180, 233], [230, 159, 0], [255, 255, 255]),
    ],
)
iters, warmup = 400, 30

model = dict(
    backbone=dict(type='mmwave.WaveMLP', arch='t', out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[64, 128, 320, 512], out_channels=128),
    decode_head=dict(in_channels=[128, 128, 128, 128], channels=64, num_classes=9),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(640, 384), ratio_range=(0.5, 1.2), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(224, 224)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(640, 384), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
workers = dict(num_workers=0, persistent_workers=False)
dataset = dict(
    type='BaseSegDataset',
    data_root=data_root,
    data_prefix=dict(img_path='images', seg_map_path='annotations'),
    metainfo=metainfo,
)
train_dataloader = dict(batch_size=4, **workers, dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(batch_size=1, **workers, dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(lr=5e-4, weight_decay=0.05), clip_grad=dict(max_norm=10))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=warmup, end=iters),
]
train_cfg = dict(max_iters=iters, val_interval=iters)
# One process of 4 images
auto_scale_lr = dict(base_batch_size=4)

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=iters, max_keep_ckpts=1, save_best=None, save_optimizer=False),
)
randomness = dict(seed=0)
