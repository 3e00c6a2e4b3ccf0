"""RetinaNet on Hire-MLP-T; PVT's recipe, not trained here."""

_base_ = [
    '../_base_/models/retinanet_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_adamw_1x.py',
    '../_base_/runtime/mmdet.py',
]

model = dict(
    backbone=dict(
        type='mmwave.HireMLP',
        arch='t',
        out_indices=(1, 2, 3),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/hiremlp-t_in1k.pth'
        ),
    ),
    neck=dict(in_channels=[128, 320, 512], add_extra_convs='on_input'),
)
