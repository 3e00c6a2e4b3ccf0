"""UPerNet on Hire-MLP-S for Cityscapes with AS-MLP's recipe; no published row, not trained here."""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/upernet_adamw_80k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(
        type='mmwave.HireMLP',
        arch='s',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/hiremlp-s_in1k.pth'
        ),
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512], num_classes=19),
    auxiliary_head=dict(in_channels=320, num_classes=19),
)
