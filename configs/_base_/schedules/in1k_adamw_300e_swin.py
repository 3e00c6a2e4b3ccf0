"""300 epochs of AdamW with cosine decay, clipped gradients and mixed precision: the recipe of Swin and AS-MLP.

The learning rate changes with every step: a linear warm-up from 1e-6 over the first 20 epochs, then a cosine that is
counted from the first step and ends at 1e-5. mmengine chains the two, so the cosine has already begun in the warm-up.
"""

optim_wrapper = dict(
    type='AmpOptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05),
    # No decay on tensors of one dimension, which are norms and biases.
    paramwise_cfg=dict(flat_decay_mult=0.0),
    # Gradients are clipped, as in the recipe.
    clip_grad=dict(max_norm=5.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-3,
        begin=0,
        end=20,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(
        type='CosineAnnealingLR',
        T_max=300,
        eta_min=1e-5,
        begin=0,
        end=300,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# 8 GPUs x 128 images
auto_scale_lr = dict(base_batch_size=1024)
