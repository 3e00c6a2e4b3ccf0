"""UPerNet on ActiveMLP-B: 48.63 mIoU in the release, here by its config of L; not trained here."""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/upernet_adamw_160k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(
        type='mmwave.ActiveMLP',
        arch='b',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/activemlp-b_in1k.pth'
        ),
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512], num_classes=150),
    auxiliary_head=dict(in_channels=320, num_classes=150),
)
train_dataloader = dict(batch_size=2)
