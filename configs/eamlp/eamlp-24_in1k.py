"""EAMLP-24: in the release's code, without weights, result or recipe: EAMLP-7's, not trained here."""

_base_ = [
    '../_base_/models/linear_classifier.py',
    '../_base_/datasets/in1k_224.py',
    '../_base_/schedules/in1k_adamw_300e.py',
    '../_base_/runtime/mmpretrain.py',
]

model = dict(
    backbone=dict(
        type='mmwave.EAMLP', arch='24', out_indices=(3,), drop_path_rate=0.1, out_type='cls_token'
    ),
    neck=None,  # the class token is one vector
    head=dict(in_channels=512),
)
# 64 images a GPU; the number of GPUs is not published, 8 are taken.
train_dataloader = dict(batch_size=64, sampler=dict(type='DefaultSampler'))
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(weight_decay=0.03))
auto_scale_lr = dict(base_batch_size=512)
