"""Semantic FPN on ResMLP-S12; PVT's recipe, no published row, not trained here."""

_base_ = [
    '../_base_/models/sem-fpn.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/sem-fpn_adamw_40k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    data_preprocessor=dict(test_cfg=dict(size_divisor=32)),
    backbone=dict(
        type='mmwave.ResMLP',
        arch='s12',
        out_indices=(3,),
        drop_path_rate=0.05,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/resmlp-s12_in1k.pth'
        ),
    ),
    neck=dict(type='mmwave.SimpleFeaturePyramid', in_channels=384),
    decode_head=dict(num_classes=150),
)
