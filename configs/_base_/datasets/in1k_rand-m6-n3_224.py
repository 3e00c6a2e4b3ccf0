"""ImageNet-1k at 224 pixels with the augmentation of the PosMLP release, 60 images a GPU.

rand-m6-n3-mstd1.0-inc1 (timm's loader), no erasing, crops of aspect ratios 0.67 to 1.5 resized bilinearly or
bicubically by chance; evaluation on the centre 0.9 of the image, bicubic.
"""

data_preprocessor = dict(
    num_classes=1000,
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True,
)
# Transforms work on images as loaded: blue first.
bgr_mean = data_preprocessor['mean'][::-1]

crop = dict(scale=224, aspect_ratio_range=(0.67, 1.5), backend='pillow')
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='RandomChoice',
        transforms=[
            [dict(type='RandomResizedCrop', interpolation='bilinear', **crop)],
            [dict(type='RandomResizedCrop', interpolation='bicubic', **crop)],
        ],
    ),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(
        type='RandAugment',
        policies='timm_increasing',
        num_policies=3,
        total_level=10,
        magnitude_level=6,
        magnitude_std=1.0,
        hparams=dict(pad_val=[round(x) for x in bgr_mean], interpolation='bicubic'),
    ),
    dict(type='PackInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='ResizeEdge',
        scale=248,  # floor(224 / 0.9)
        edge='short',
        backend='pillow',
        interpolation='bicubic',
    ),
    dict(type='CenterCrop', crop_size=224),
    dict(type='PackInputs'),
]

train_dataloader = dict(
    batch_size=60,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='ImageNet', data_root='data/imagenet', split='train', pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    batch_size=60,
    num_workers=8,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(type='ImageNet', data_root='data/imagenet', split='val', pipeline=test_pipeline),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
