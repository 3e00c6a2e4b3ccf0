"""Wave-MLP-T from scratch on 400 photographs of five flowers, 128 x 128, 24 epochs."""

_base_ = [
    '../../../configs/_base_/models/linear_classifier.py',
    '../../../configs/_base_/datasets/in1k_224.py',
    '../../../configs/_base_/runtime/mmpretrain.py',
]

classes = ('daisy', 'dandelion', 'roses', 'sunflowers', 'tulips')
model = dict(
    backbone=dict(type='mmwave.WaveMLP', arch='t', out_indices=(3,), drop_path_rate=0.1),
    head=dict(in_channels=512, num_classes=len(classes)),
    train_cfg=dict(augments=None),
)
data_preprocessor = dict(num_classes=len(classes))

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=128, crop_ratio_range=(0.35, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=144, edge='short'),
    dict(type='CenterCrop', crop_size=128),
    dict(type='PackInputs'),
]
data = dict(
    data_root='{{$MMWAVE_DATA:data}}/imagenet_like/flowers5/', metainfo=dict(classes=classes)
)
train_dataloader = dict(
    batch_size=16,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(pipeline=train_pipeline, **data),
)
val_dataloader = dict(batch_size=25, num_workers=1, dataset=dict(pipeline=test_pipeline, **data))
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=1)
test_evaluator = val_evaluator

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=5e-4, weight_decay=0.05),
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=2, convert_to_iter_based=True),
    dict(type='CosineAnnealingLR', begin=2, end=24, convert_to_iter_based=True),
]
train_cfg = dict(by_epoch=True, max_epochs=24, val_interval=4)
val_cfg = dict()
test_cfg = dict()
default_hooks = dict(logger=dict(interval=6))
randomness = dict(seed=0)
