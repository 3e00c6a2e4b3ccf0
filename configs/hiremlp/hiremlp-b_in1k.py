"""Hire-MLP-B: 83.2 % top-1 in the release's README; not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_deit_224_crop875.py',
    '../_base_/schedules/in1k_adamw_300e_warmup20_1024.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.HireMLP', arch='b', out_indices=(3,), drop_path_rate=0.2),
    head=dict(in_channels=512),
)
