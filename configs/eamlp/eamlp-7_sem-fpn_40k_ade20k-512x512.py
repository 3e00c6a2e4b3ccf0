"""Semantic FPN on EAMLP-7; PVT's recipe, no published row, not trained here."""

_base_ = [
    '../_base_/models/sem-fpn.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/sem-fpn_adamw_40k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=32)),
    backbone=dict(
        type='mmwave.EAMLP',
        arch='7',
        out_indices=(0, 1, 3),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/eamlp-7_in1k.pth'
        ),
    ),
    neck=dict(in_channels=[64, 64, 256]),
    decode_head=dict(num_classes=150),
)
