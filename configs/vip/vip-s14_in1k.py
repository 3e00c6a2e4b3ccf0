"""ViP-Small/14: in the release's code, but neither weights nor a log of it were published; S7's settings, not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_224.py',
    '../_base_/schedules/in1k_adamw_300e_warmup20.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(type='mmwave.ViP', arch='s14', out_indices=(3,), drop_path_rate=0.1),
    head=dict(in_channels=384),
)
train_dataloader = dict(batch_size=256, sampler=dict(type='DefaultSampler'))
