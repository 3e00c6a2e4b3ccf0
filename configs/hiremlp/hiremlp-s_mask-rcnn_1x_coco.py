"""Mask R-CNN on Hire-MLP-S; PVT's recipe, not trained here."""

_base_ = [
    '../_base_/models/mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_adamw_1x.py',
    '../_base_/runtime/mmdet.py',
]

model = dict(
    backbone=dict(
        type='mmwave.HireMLP',
        arch='s',
        out_indices=(0, 1, 2, 3),
        drop_path_rate=0.1,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/hiremlp-s_in1k.pth'
        ),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
