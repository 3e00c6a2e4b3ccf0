"""UPerNet on AS-MLP-T for Cityscapes with the recipe of its ADE20K models; no published row, not trained here."""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/upernet_adamw_80k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(
        type='mmwave.ASMLP',
        arch='t',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.3,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/asmlp-t_in1k.pth'
        ),
    ),
    decode_head=dict(in_channels=[96, 192, 384, 768], num_classes=19),
    auxiliary_head=dict(in_channels=384, num_classes=19),
)
