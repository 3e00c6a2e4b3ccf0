"""UPerNet on Mixer-B/16 for Cityscapes; AS-MLP's recipe, no published row, not trained here."""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/upernet_adamw_80k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, test_cfg=dict(size_divisor=32)),
    backbone=dict(
        type='mmwave.MLPMixer',
        arch='b16',
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/mlp-mixer-b16_in1k.pth',
        ),
    ),
    neck=dict(type='Feature2Pyramid', embed_dim=768, norm_cfg=dict(type='SyncBN')),
    decode_head=dict(in_channels=[768, 768, 768, 768], num_classes=19),
    auxiliary_head=dict(in_channels=768, num_classes=19),
)
