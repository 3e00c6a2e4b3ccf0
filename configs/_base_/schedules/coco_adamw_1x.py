"""12 epochs of AdamW, steps at 8 and 11, on 8 GPUs x 2 images: the recipe the MLP papers take over from PVT.

Batch norms see 16 images, not 2: ``sync_bn`` makes them share statistics across the GPUs. On a single GPU, where
a step has 2 images, set ``model.backbone.norm_eval=True`` to keep the pretraining's statistics instead.
"""

# Gradients are not clipped: the recipe names no clipping.
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=1e-4),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=500, by_epoch=False),
    dict(type='MultiStepLR', begin=0, end=12, by_epoch=True, milestones=[8, 11], gamma=0.1),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=12, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
sync_bn = 'torch'
# 8 GPUs x 2 images
auto_scale_lr = dict(enable=False, base_batch_size=16)
