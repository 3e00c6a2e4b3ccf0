"""Mixer-L/16: 72.08 % top-1 of Google's weights in timm's table; no recipe is published: mmpretrain's settings, not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_plain_224.py',
    '../_base_/schedules/in1k_adamw_300e_warmup30.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.MLPMixer', arch='l16', out_indices=(3,)),
    # Neither smoothed nor mixed labels.
    head=dict(in_channels=1024, loss=dict(label_smooth_val=0.0)),
    train_cfg=None,
)
