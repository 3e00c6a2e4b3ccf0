"""AS-MLP-S: 83.1 % top-1 in the release's README; not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_swin_224.py',
    '../_base_/schedules/in1k_adamw_300e_swin.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.ASMLP', arch='s', out_indices=(3,), drop_path_rate=0.3),
    head=dict(in_channels=768),
)
