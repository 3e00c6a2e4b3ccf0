"""Mask R-CNN on ResMLP-S12; PVT's recipe, no published row, not trained here."""

_base_ = [
    '../_base_/models/mask-rcnn_fpn.py',
    '../_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_adamw_1x.py',
    '../_base_/runtime/mmdet.py',
]

model = dict(
    backbone=dict(
        type='mmwave.ResMLP',
        arch='s12',
        out_indices=(3,),
        drop_path_rate=0.05,
        init_cfg=dict(
            type='Pretrained', checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/resmlp-s12_in1k.pth'
        ),
    ),
    neck=dict(type='mmwave.SimpleFeaturePyramid', in_channels=384),
)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
