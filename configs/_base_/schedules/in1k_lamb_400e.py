"""400 epochs of LAMB with cosine decay in single precision: the recipe that ResMLP's authors give (deit#106).

They state the rate, the weight decay and 5 epochs of warm-up. Where the warm-up starts and where the cosine ends,
1e-6 and 1e-5, are filled in, as is that the rate is stepped once an epoch. No clipping of gradients is stated, and there
is none.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(
        type='Lamb',
        lr=5e-3,
        betas=(0.9, 0.999),
        eps=1e-6,
        weight_decay=0.2,
        # mmpretrain's LAMB always clips the norm of all gradients, at 1 by default: beyond reach here. An infinite norm
        # is dumped as `inf`, which no config is read back with.
        max_grad_norm=1e9,
    ),
    # No decay on tensors of one dimension: affine layers, scales and biases.
    paramwise_cfg=dict(flat_decay_mult=0.0),
)
param_scheduler = [
    # mmengine reaches the end factor one step before `end`: 5 epochs of warm-up end at 6.
    dict(type='LinearLR', start_factor=2e-4, begin=0, end=6, by_epoch=True),
    dict(type='CosineAnnealingLR', T_max=400, eta_min=1e-5, begin=0, end=401, by_epoch=True),
]
train_cfg = dict(by_epoch=True, max_epochs=400, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# 8 GPUs x 256 images
auto_scale_lr = dict(base_batch_size=2048)
