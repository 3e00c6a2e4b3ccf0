"""Semantic FPN on ViP-Small/7; PVT's recipe, no published row, not trained here."""

_base_ = [
    '../_base_/models/sem-fpn.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/sem-fpn_adamw_40k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    data_preprocessor=dict(size_divisor=28, test_cfg=dict(size_divisor=28)),
    backbone=dict(
        type='mmwave.ViP',
        arch='s7',
        out_indices=(3,),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/vip-s7_in1k.pth'
        ),
    ),
    neck=dict(type='mmwave.SimpleFeaturePyramid', in_channels=384),
    # Strides 3.5, 7, 14 and 28: the head asks only for their ratios.
    decode_head=dict(num_classes=150),
)
