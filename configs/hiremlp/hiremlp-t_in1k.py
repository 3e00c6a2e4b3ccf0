"""Hire-MLP-T: 79.7 % top-1 in the release's README; not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_deit_224_crop875.py',
    '../_base_/schedules/in1k_adamw_300e_warmup20.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.HireMLP', arch='t', out_indices=(3,)),
    head=dict(in_channels=512),
)
train_dataloader = dict(batch_size=256)
