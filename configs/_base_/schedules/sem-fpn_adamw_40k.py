"""40,000 iterations of AdamW with polynomial decay on 8 GPUs x 4 images: PVT's recipe for Semantic FPN."""

# Gradients are not clipped: the recipe names no clipping.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-4, betas=(0.9, 0.999), weight_decay=1e-4),
)
param_scheduler = [
    dict(type='PolyLR', power=0.9, eta_min=0.0, begin=0, end=40000, by_epoch=False),
]
train_cfg = dict(type='IterBasedTrainLoop', max_iters=40000, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
sync_bn = 'torch'
# 8 GPUs x 4 images
auto_scale_lr = dict(enable=False, base_batch_size=32)
