"""Mixer-S/16: no ImageNet-1k weights were published; no recipe is published: mmpretrain's settings, not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_plain_224.py',
    '../_base_/schedules/in1k_adamw_300e_warmup30.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.MLPMixer', arch='s16', out_indices=(3,)),
    # Neither smoothed nor mixed labels.
    head=dict(in_channels=512, loss=dict(label_smooth_val=0.0)),
    train_cfg=None,
)
