"""UPerNet on RepMLPNet-D256 for Cityscapes: the paper's model, 76.27 % mIoU; AS-MLP's recipe, not trained here."""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/upernet_adamw_80k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(
        type='mmwave.RepMLPNet',
        arch='d256',
        out_indices=(0, 1, 2, 3),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/repmlpnet-d256_in1k.pth',
        ),
    ),
    decode_head=dict(in_channels=[80, 160, 320, 640], num_classes=19),
    auxiliary_head=dict(in_channels=320, num_classes=19),
)
