"""300 epochs of AdamW with 30 of warm-up, cosine decay and clipped gradients: mmpretrain's config of MLP-Mixer.

The rate rises with every step of the warm-up and falls with every epoch after it. Norms and biases decay too.
"""

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.3),
    # Gradients are clipped, as in the recipe.
    clip_grad=dict(max_norm=1.0),
)
param_scheduler = [
    dict(
        type='LinearLR',
        start_factor=1e-4,
        begin=0,
        end=30,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
    dict(type='CosineAnnealingLR', T_max=270, eta_min=0.0, begin=30, end=300, by_epoch=True),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# 64 GPUs x 64 images
auto_scale_lr = dict(base_batch_size=4096)
