"""RetinaNet on ViP-Small/7; PVT's recipe, no published row, not trained here."""

_base_ = [
    '../_base_/models/retinanet_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_adamw_1x.py',
    '../_base_/runtime/mmdet.py',
]

model = dict(
    data_preprocessor=dict(pad_size_divisor=28),
    backbone=dict(
        type='mmwave.ViP',
        arch='s7',
        out_indices=(3,),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/vip-s7_in1k.pth'
        ),
    ),
    neck=dict(type='mmwave.SimpleFeaturePyramid', in_channels=384, scales=(2, 1, 0.5)),
    bbox_head=dict(anchor_generator=dict(strides=[7, 14, 28, 56, 112])),
)
