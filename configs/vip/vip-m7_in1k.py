"""ViP-Medium/7: 82.7 % top-1 in the release's README; its drop path is not published: S7's; not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_224.py',
    '../_base_/schedules/in1k_adamw_300e_warmup20.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.ViP', arch='m7', out_indices=(3,), drop_path_rate=0.1),
    head=dict(in_channels=512),
)
train_dataloader = dict(batch_size=256, sampler=dict(type='DefaultSampler'))
