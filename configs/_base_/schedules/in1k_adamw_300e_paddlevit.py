"""300 epochs of AdamW with 20 of warm-up and cosine decay in single precision: PaddleViT's generic recipe.

The rate is 1e-3 for every 512 images, and the warm-up starts at 1e-6. Where the cosine ends, 1e-5, is filled in, as is
that the rate is stepped once an epoch and that norms and biases do not decay.
"""

# Gradients are not clipped: no clipping is known of.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
    # No decay on tensors of one dimension, which are norms and biases.
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    # mmengine reaches the end factor one step before `end`: 20 epochs of warm-up end at 21.
    dict(type='LinearLR', start_factor=2.5e-4, begin=0, end=21, by_epoch=True),
    dict(type='CosineAnnealingLR', T_max=300, eta_min=1e-5, begin=0, end=301, by_epoch=True),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# 8 GPUs x 256 images
auto_scale_lr = dict(base_batch_size=2048)
