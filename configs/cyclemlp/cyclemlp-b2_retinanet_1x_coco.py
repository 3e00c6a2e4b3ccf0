"""RetinaNet on CycleMLP-B2: 40.6 box AP in the paper, as DCCNeXt (AAAI 2025) quotes it; not trained here."""

_base_ = [
    '../_base_/models/retinanet_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_adamw_1x.py',
    '../_base_/runtime/mmdet.py',
]

model = dict(
    backbone=dict(
        type='mmwave.CycleMLP',
        arch='b2',
        out_indices=(1, 2, 3),
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/cyclemlp-b2_in1k.pth'
        ),
    ),
    neck=dict(in_channels=[128, 320, 512], add_extra_convs='on_input'),
)
