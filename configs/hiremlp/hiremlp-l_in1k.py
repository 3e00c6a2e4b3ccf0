"""Hire-MLP-L: 83.8 % top-1 in the release's README; its drop path is not published: that of the segmentation code; not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_deit_224_crop875.py',
    '../_base_/schedules/in1k_adamw_300e_warmup20_1024.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.HireMLP', arch='l', out_indices=(3,), drop_path_rate=0.3),
    head=dict(in_channels=768),
)
