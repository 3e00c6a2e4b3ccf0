"""100 epochs of AdamW with cosine decay in single precision: the published RepMLPNet recipe.

The learning rate changes with every step: a linear warm-up from 5e-7 over the first 10 epochs, then a cosine that is
counted from the first step and ends at 0. mmengine chains the two, so the cosine has already begun in the warm-up.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1),
    # No decay on tensors of one dimension, which are norms and biases.
    paramwise_cfg=dict(flat_decay_mult=0.0),
    # Gradients are clipped, as in the recipe.
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=5e-4,
        begin=0,
        end=10,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=100,
        eta_min=0.0,
        begin=0,
        end=100,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=100, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# 8 GPUs x 32 images
auto_scale_lr = dict(base_batch_size=256)
