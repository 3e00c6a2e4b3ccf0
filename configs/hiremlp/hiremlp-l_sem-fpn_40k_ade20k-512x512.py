"""Semantic FPN on Hire-MLP-L; the recipe of the release's Hire-MLP-S, not trained here."""

_base_ = [
    '../_base_/models/sem-fpn.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/sem-fpn_adamw_40k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(
        type='mmwave.HireMLP',
        arch='l',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.3,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/hiremlp-l_in1k.pth'
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
    decode_head=dict(num_classes=150),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
