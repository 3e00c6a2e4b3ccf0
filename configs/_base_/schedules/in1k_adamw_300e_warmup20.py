"""300 epochs of AdamW with 20 of warm-up, cosine decay and mixed precision: the published recipe of ViP.

The learning rate follows the release's scheduler (timm's cosine over 300 epochs, its first 20 replaced by a
linear warm-up from 1e-6, stepped once an epoch). The release also adds timm's ten cool-down epochs at the
lowest rate: ``--cfg-options train_cfg.max_epochs=310``.
"""

# Gradients are not clipped: the recipe names no clipping.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    # As timm does: no decay on tensors of one dimension, which are norms and biases.
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    # mmengine reaches the end factor one step before `end`: 20 epochs of warm-up end at 21.
    dict(type='LinearLR', start_factor=5e-4, begin=0, end=21, by_epoch=True),
    dict(type='CosineAnnealingLR', T_max=300, eta_min=1e-5, begin=0, end=301, by_epoch=True),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# 8 GPUs x 256 images
auto_scale_lr = dict(base_batch_size=2048)
