"""300 epochs of AdamW with 10 of warm-up, cosine decay, EMA, clipped gradients and mixed precision: PosMLP's recipe.

The learning rate follows the release's scheduler (timm's cosine over 300 epochs, its first 10 replaced by a
linear warm-up from 1e-5, stepped once an epoch), without timm's cool-down.
"""

optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-5, weight_decay=0.067),
    # As timm does: no decay on tensors of one dimension, which are norms and biases.
    paramwise_cfg=dict(flat_decay_mult=0.0),
    # Gradients are clipped, as in the recipe.
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    # mmengine reaches the end factor one step before `end`: 10 epochs of warm-up end at 11.
    dict(type='LinearLR', start_factor=1e-2, begin=0, end=11, by_epoch=True),
    dict(type='CosineAnnealingLR', T_max=300, eta_min=1e-6, begin=0, end=301, by_epoch=True),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# Decay 0.99992 a step, statistics of batch norms averaged with the weights, as timm's ModelEma does.
custom_hooks = [
    dict(type='EMAHook', momentum=8e-5, update_buffers=True, priority='ABOVE_NORMAL'),
]
# 8 GPUs x 60 images
auto_scale_lr = dict(base_batch_size=480)
