"""ResMLP-B24/8: 81.03 % top-1 of the release's weights in timm's table (crop 0.875); not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_deit_224.py',
    '../_base_/schedules/in1k_lamb_400e.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.ResMLP', arch='b24', out_indices=(3,), drop_path_rate=0.05),
    head=dict(in_channels=768),
)
