"""Semantic FPN on Hire-MLP-S; the release's recipe, not trained here."""

_base_ = [
    '../_base_/models/sem-fpn.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/sem-fpn_adamw_40k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(
        type='mmwave.HireMLP',
        arch='s',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/hiremlp-s_in1k.pth'
        ),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
    decode_head=dict(num_classes=150),
)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
