"""gMLP-S/16: 79.65 % top-1 of timm's weights in timm's table; no recipe is published: PaddleViT's generic one, not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_paddlevit_224.py',
    '../_base_/schedules/in1k_adamw_300e_paddlevit.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.GMLP', arch='s16', out_indices=(3,), drop_path_rate=0.1),
    head=dict(in_channels=256),
)
