"""PosMLP-B: 83.6 % top-1 in the release's README, without its settings: S's, less the head's dropout; not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_rand-m6-n3_224.py',
    '../_base_/schedules/in1k_adamw_300e_warmup10.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(
        type='mmwave.PosMLP', arch='b', out_indices=(3,), drop_path_rate=0.1, drop_rate=0.0233
    ),
    head=dict(in_channels=1536),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.5), dict(type='CutMix', alpha=1.0)]),
)
