"""RetinaNet on EAMLP-7; PVT's recipe, no published row, not trained here."""

_base_ = [
    '../_base_/models/retinanet_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_adamw_1x.py',
    '../_base_/runtime/mmdet.py',
]

model = dict(
    backbone=dict(
        type='mmwave.EAMLP',
        arch='7',
        out_indices=(1, 3),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/eamlp-7_in1k.pth'
        ),
    ),
    neck=dict(in_channels=[64, 256], add_extra_convs='on_input'),
)
