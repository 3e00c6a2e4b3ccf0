"""RetinaNet on Wave-MLP-T* learns 8 COCO photographs by heart: trained and evaluated on the
same."""

_base_ = [
    '../../../configs/_base_/models/retinanet_fpn.py',
    '../../../configs/_base_/datasets/coco_detection.py',
    '../../../configs/_base_/runtime/mmdet.py',
]

model = dict(
    backbone=dict(type='mmwave.WaveMLP', arch='t-dw', out_indices=(1, 2, 3)),
    neck=dict(in_channels=[128, 320, 512], add_extra_convs='on_input'),
    # Images of a quarter of the usual area need smaller anchors.
    bbox_head=dict(anchor_generator=dict(octave_base_scale=2)),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(320, 320), keep_ratio=True),
    dict(type='LoadAnnotations', with_bbox=True),
    # CocoMetric without an annotation file takes the ground truth from the samples.
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor', 'instances'),
    ),
]
train_pipeline = [pipeline[0], pipeline[2], pipeline[1], pipeline[3]]
photographs = dict(
    data_root='{{$MMWAVE_DATA:data}}/coco_mini/',
    ann_file='annotations/instances_train2017.json',
    data_prefix=dict(img='train2017/'),
    indices=8,
)
train_dataloader = dict(
    batch_size=4,
    num_workers=1,
    dataset=dict(
        _delete_=True,
        type='RepeatDataset',
        times=25,
        dataset=dict(type='CocoDataset', pipeline=train_pipeline, **photographs),
    ),
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=pipeline, **photographs))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=None)
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=1e-4),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=25, by_epoch=False),
    dict(type='CosineAnnealingLR', eta_min=1e-6, begin=0, end=16, convert_to_iter_based=True),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=16, val_interval=4)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
default_hooks = dict(logger=dict(interval=25))
randomness = dict(seed=0)
