"""UPerNet on RepMLPNet-T256 from scratch on 52 street scenes of CamVid, crops of 256 x 512."""

_base_ = [
    '../../../configs/_base_/models/upernet.py',
    '../../../configs/_base_/datasets/cityscapes_512x1024.py',
    '../../../configs/_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(type='mmwave.RepMLPNet', arch='t256', out_indices=(0, 1, 2, 3)),
    # An eighth of the usual head: the backbone is what is looked at here.
    decode_head=dict(in_channels=[64, 128, 256, 512], channels=64, num_classes=19),
    auxiliary_head=dict(in_channels=256, channels=64, num_classes=19),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomResize', scale=(512, 384), ratio_range=(1.0, 1.5), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(256, 512)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
# Whole images of 480 x 360 pixels: two windows by two, padded by the backbone.
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
data_root = '{{$MMWAVE_DATA:data}}/street_seg/camvid_cityscapes'
train_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, pipeline=train_pipeline))
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, pipeline=test_pipeline))
test_dataloader = val_dataloader

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.01),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=20, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=20, end=200, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=200, val_interval=100)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(logger=dict(interval=10), checkpoint=dict(interval=200))
randomness = dict(seed=0)
