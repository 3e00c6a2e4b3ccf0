"""UPerNet on ViP-Small/7 for Cityscapes; AS-MLP's recipe, no published row, not trained here."""

_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/cityscapes_512x1024.py',
    '../_base_/schedules/upernet_adamw_80k.py',
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
    decode_head=dict(in_channels=[256, 256, 256, 256], num_classes=19),
    auxiliary_head=dict(in_channels=256, num_classes=19),
)
