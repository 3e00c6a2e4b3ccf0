"""Semantic FPN on Mixer-B/16; PVT's recipe, no published row, not trained here."""

_base_ = [
    '../_base_/models/sem-fpn.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/sem-fpn_adamw_40k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3, test_cfg=dict(size_divisor=32)),
    backbone=dict(
        type='mmwave.MLPMixer',
        arch='b16',
        out_indices=(3,),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/mlp-mixer-b16_in1k.pth',
        ),
    ),
    neck=dict(type='mmwave.SimpleFeaturePyramid', in_channels=768),
    decode_head=dict(num_classes=150),
)
