"""Semantic FPN on ActiveMLP-xT: 43.03 mIoU in the release, without a config; PVT's recipe here, not trained here."""

_base_ = [
    '../_base_/models/sem-fpn.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/sem-fpn_adamw_40k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(
        type='mmwave.ActiveMLP',
        arch='xt',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained',
            checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/activemlp-xt_in1k.pth',
        ),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
    decode_head=dict(num_classes=150),
)
