"""RepMLPNet-T224 with mindcv's recipe: 76.71 % top-1, 93.30 % top-5 in its README; not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_mindcv_224.py',
    '../_base_/schedules/in1k_adamw_300e_mindcv.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(
        type='mmwave.RepMLPNet',
        arch='t224',
        out_indices=(3,),
        act_cfg=dict(type='GELU', approximate='tanh'),  # MindSpore's GELU
    ),
    head=dict(in_channels=512),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.2), dict(type='CutMix', alpha=1.0)]),
)
