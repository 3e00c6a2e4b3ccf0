"""Semantic FPN on Wave-MLP-T*, from scratch, for small pictures; the background is a class."""

_base_ = [
    '../../../configs/_base_/models/sem-fpn.py',
    '../../../configs/_base_/datasets/ade20k_512x512.py',
    '../../../configs/_base_/schedules/sem-fpn_adamw_40k.py',
    '../../../configs/_base_/runtime/mmseg.py',
]

data_root = 'data/shapes/ade'
metainfo = dict(classes=('background', 'circle', 'ring', 'square', 'star', 'triangle'))
side = 128
iters, warmup = 400, 30

model = dict(
    backbone=dict(type='mmwave.WaveMLP', arch='t-dw', out_indices=(0, 1, 2, 3)),
    neck=dict(in_channels=[64, 128, 320, 512], out_channels=128),
    decode_head=dict(in_channels=[128, 128, 128, 128], channels=64, num_classes=6),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(side, side), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(side, side), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
# The pictures are small enough to be read between two steps.
workers = dict(num_workers=0, persistent_workers=False)
dataset = dict(
    type='BaseSegDataset',
    img_suffix='.jpg',
    data_root=data_root,
    metainfo=metainfo,
)
train_dataloader = dict(batch_size=4, **workers, dataset=dict(pipeline=train_pipeline, **dataset))
val_dataloader = dict(batch_size=1, **workers, dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader

optim_wrapper = dict(
    optimizer=dict(lr=5e-4, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup),
    dict(type='PolyLR', power=0.9, eta_min=0.0, by_epoch=False, begin=warmup, end=iters),
]
train_cfg = dict(max_iters=iters, val_interval=iters)
# 2 processes x 4 images
auto_scale_lr = dict(base_batch_size=8)

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=iters, max_keep_ckpts=1, save_best=None, save_optimizer=False),
)
randomness = dict(seed=0)
