"""PosMLP-T: 82.1 % top-1 in the release's README; its dropout in the head is left out; not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_rand-m6-n3_224.py',
    '../_base_/schedules/in1k_adamw_300e_warmup10.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(
        type='mmwave.PosMLP', arch='t', out_indices=(3,), drop_path_rate=0.1, drop_rate=0.0233
    ),
    head=dict(in_channels=768),
    train_cfg=dict(augments=[dict(type='Mixup', alpha=0.5), dict(type='CutMix', alpha=1.0)]),
)
# 4 GPUs x 128 images. The warm-up starts at 1e-5, whatever the rate.
train_dataloader = dict(batch_size=128)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=5e-3, begin=0, end=11, by_epoch=True),
    dict(type='CosineAnnealingLR', T_max=300, eta_min=1e-6, begin=0, end=301, by_epoch=True),
]
auto_scale_lr = dict(base_batch_size=512)
