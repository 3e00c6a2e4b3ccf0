"""RetinaNet on Mixer-B/16; PVT's recipe, no published row, not trained here."""

_base_ = [
    '../_base_/models/retinanet_fpn.py',
    '../_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_adamw_1x.py',
    '../_base_/runtime/mmdet.py',
]

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        type='mmwave.MLPMixer',
        arch='b16',
        out_indices=(3,),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='{{$MMWAVE_CHECKPOINTS:checkpoints}}/mlp-mixer-b16_in1k.pth',
        ),
    ),
    neck=dict(type='mmwave.SimpleFeaturePyramid', in_channels=768, scales=(2, 1, 0.5)),
)
