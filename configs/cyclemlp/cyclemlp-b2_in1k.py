"""CycleMLP-B2: 81.6 % top-1 in the release's README, of the raw weights; not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_deit_224_crop875.py',
    '../_base_/schedules/in1k_adamw_300e.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.CycleMLP', arch='b2', out_indices=(3,), drop_path_rate=0.1),
    head=dict(in_channels=512),
)
# The release averages the weights as well but never evaluates the average: none is kept here.
custom_hooks = []
