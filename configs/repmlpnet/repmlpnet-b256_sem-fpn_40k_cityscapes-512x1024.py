"""Semantic FPN on RepMLPNet-B256 for Cityscapes with PVT's recipe; no published row, not trained here."""

_base_ = [
    '../_base_/models/sem-fpn.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/sem-fpn_adamw_40k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(
        type='mmwave.RepMLPNet',
        arch='b256',
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/repmlpnet-b256_in1k.pth',
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
    decode_head=dict(num_classes=19),
)
train_dataloader = dict(batch_size=4)
