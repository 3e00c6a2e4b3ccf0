"""Wave-MLP-T* as a classifier, from scratch, one shape a picture."""

_base_ = [
    '../../../configs/_base_/models/linear_classifier.py',
    '../../../configs/_base_/datasets/in1k_224.py',
    '../../../configs/_base_/schedules/in1k_adamw_300e.py',
    '../../../configs/_base_/runtime/mmpretrain.py',
]

side = 64
epochs, warmup = 12, 1

data_preprocessor = dict(num_classes=5)
model = dict(
    backbone=dict(type='mmwave.WaveMLP', arch='t-dw', out_indices=(3,)),
    head=dict(num_classes=5, in_channels=512),
    # So short a training has no use for mixed pictures.
    train_cfg=dict(augments=None),
)

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(side, side)),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(side, side)),
    dict(type='PackInputs'),
]
# The pictures are small enough to be read between two steps.
workers = dict(num_workers=0, persistent_workers=False)
dataset = dict(
    data_root='data/shapes/imagenet',
    metainfo=dict(classes=('circle', 'ring', 'square', 'star', 'triangle')),
)
train_dataloader = dict(
    batch_size=16,
    **workers,
    sampler=dict(type='DefaultSampler'),
    dataset=dict(pipeline=train_pipeline, **dataset),
)
val_dataloader = dict(batch_size=50, **workers, dataset=dict(pipeline=test_pipeline, **dataset))
test_dataloader = val_dataloader
val_evaluator = dict(topk=(1,))
test_evaluator = val_evaluator

optim_wrapper = dict(optimizer=dict(lr=1e-3), clip_grad=dict(max_norm=5))
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=0.01,
        begin=0,
        end=warmup,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        eta_min=0.0,
        begin=warmup,
        end=epochs,
        T_max=epochs - warmup,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(max_epochs=epochs, val_interval=epochs)
custom_hooks = []
# 2 processes x 16 images
auto_scale_lr = dict(base_batch_size=32)

default_hooks = dict(
    logger=dict(interval=10),
    checkpoint=dict(interval=epochs, max_keep_ckpts=1, save_best=None, save_optimizer=False),
)
randomness = dict(seed=0)
