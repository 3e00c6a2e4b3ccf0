"""300 epochs of AdamW in mixed precision: what is known of mindcv's recipe for RepMLPNet-T224.

A warm-up of 10 epochs, then a cosine over 290; a fixed loss scale. What is filled in stands in
configs/repmlpnet/README.md.
"""

# Gradients are not clipped: no clipping is known of.
optim_wrapper = dict(
    type='AmpOptimWrapper',
    loss_scale=1024.0,
    optimizer=dict(type='AdamW', lr=5e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=2e-5),
    paramwise_cfg=dict(flat_decay_mult=0.0),
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
        T_max=290,
        eta_min=0.0,
        begin=10,
        end=300,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
train_cfg = dict(by_epoch=True, max_epochs=300, val_interval=1)
val_cfg = dict()
test_cfg = dict()
# 8 accelerators x 128 images
auto_scale_lr = dict(base_batch_size=1024)
