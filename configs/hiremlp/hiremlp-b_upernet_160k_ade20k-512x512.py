"""UPerNet on Hire-MLP-B; the recipe of the release's Hire-MLP-S, 16 images a step for its 32, not trained here."""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k_512x512.py',
    '../_base_/schedules/upernet_adamw_160k.py',
    '../_base_/runtime/mmseg.py',
]

model = dict(
    backbone=dict(
        type='mmwave.HireMLP',
        arch='b',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/hiremlp-b_in1k.pth'
        ),
    ),
    decode_head=dict(in_channels=[64, 128, 320, 512], num_classes=150),
    auxiliary_head=dict(in_channels=320, num_classes=150),
)
# The release takes 80,000 steps of 32 images at twice the rate: as many images.
train_dataloader = dict(batch_size=2)
