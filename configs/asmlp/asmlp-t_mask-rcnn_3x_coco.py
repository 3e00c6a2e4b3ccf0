"""Mask R-CNN on AS-MLP-T: 46.0 box AP and 41.5 mask AP in the release's README; not trained here."""

_base_ = [
    '../_base_/models/mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance_multi-scale-crop.py',
    '../_base_/schedules/coco_adamw_3x.py',
    '../_base_/runtime/mmdet.py',
]

model = dict(
    backbone=dict(
        type='mmwave.ASMLP',
        arch='t',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.2,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/asmlp-t_in1k.pth'
        ),
    ),
    neck=dict(in_channels=[96, 192, 384, 768]),
)
