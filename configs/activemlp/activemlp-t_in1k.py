"""ActiveMLP-T: 82.0 % top-1 in the release's README, of the averaged weights; not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_deit_224_crop875.py',
    '../_base_/schedules/in1k_adamw_300e.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.ActiveMLP', arch='t', out_indices=(3,), drop_path_rate=0.1),
    head=dict(in_channels=512),
)
# The release lets neither vectors nor the position convolutions decay.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.position.': dict(decay_mult=0.0)}))
