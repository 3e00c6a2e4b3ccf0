"""36 epochs of AdamW in mixed precision, steps at 27 and 33, on 8 GPUs x 2 images: the recipe of Swin's and AS-MLP's detectors.

What has "norm" in its name does not decay, as there: norms of the backbone, but not the batch norms of heads.
"""

# Gradients are not clipped: the recipe names no clipping.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys=dict(norm=dict(decay_mult=0.0))),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1e-3, begin=0, end=500, by_epoch=False),
    dict(type='MultiStepLR', begin=0, end=36, by_epoch=True, milestones=[27, 33], gamma=0.1),
]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=36, val_interval=1)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
sync_bn = 'torch'
# 8 GPUs x 2 images
auto_scale_lr = dict(enable=False, base_batch_size=16)
