"""RepMLPNet-D256: 80.83 % top-1 in the release's README; not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_raug15_256.py',
    '../_base_/schedules/in1k_adamw_100e.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.RepMLPNet', arch='d256', out_indices=(3,)),
    head=dict(in_channels=640),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.4), dict(type='CutMix', alpha=1.0)]),
)
