"""RetinaNet on Wave-MLP-T*, from scratch, sized for small pictures and two CPU cores."""

_base_ = [
    '../../../configs/_base_/models/retinanet_fpn.py',
    '../../../configs/_base_/datasets/coco_detection.py',
    '../../../configs/_base_/schedules/coco_adamw_1x.py',
    '../../../configs/_base_/runtime/mmdet.py',
]

data_root = 'data/shapes/coco/'
metainfo = dict(classes=('circle', 'ring', 'square', 'star', 'triangle'))
side = 96
epochs, steps_an_epoch, warmup = 5, 100, 30

# Nothing is pretrained: group norm in the neck and the head makes up for a part of that.
norm_cfg = dict(type='GN', num_groups=16)
model = dict(
    # Small pictures need no saving of memory, which costs a sixth of the backbone's time here.
    backbone=dict(type='mmwave.WaveMLP', arch='t-dw', out_indices=(1, 2, 3), lean=False),
    neck=dict(
        in_channels=[128, 320, 512],
        out_channels=128,
        add_extra_convs=False,
        num_outs=3,
        norm_cfg=norm_cfg,
    ),
    bbox_head=dict(
        num_classes=5,
        in_channels=128,
        feat_channels=128,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        anchor_generator=dict(octave_base_scale=3, strides=[8, 16, 32]),
    ),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(side, side), keep_ratio=True),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(side, side), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
# The pictures are small enough to be read between two steps.
workers = dict(num_workers=0, persistent_workers=False)
train_dataloader = dict(
    batch_size=4,
    **workers,
    dataset=dict(
        data_root=data_root,
        metainfo=metainfo,
        filter_cfg=dict(filter_empty_gt=False),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=10,
    **workers,
    dataset=dict(data_root=data_root, metainfo=metainfo, pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=data_root + 'annotations/instances_val2017.json')
test_evaluator = val_evaluator

optim_wrapper = dict(
    optimizer=dict(lr=1e-3, weight_decay=0.05, fused=True),
    clip_grad=dict(max_norm=10),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=warmup),
    dict(
        type='CosineAnnealingLR',
        by_epoch=False,
        begin=warmup,
        end=epochs * steps_an_epoch,
        T_max=epochs * steps_an_epoch - warmup,
        eta_min=0.0,
    ),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
# 2 processes x 4 images
auto_scale_lr = dict(base_batch_size=8)

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=epochs, max_keep_ckpts=1, save_best=None, save_optimizer=False),
)
randomness = dict(seed=0)
