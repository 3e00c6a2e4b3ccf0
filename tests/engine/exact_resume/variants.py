"""Data sets, samplers and augmentations that a resumed run must repeat; each changes a config."""

from mmengine.config import Config


def repeat_augment(cfg: Config) -> None:
    """Images that several ranks augment; mixtures drawn by chance."""
    cfg.train_dataloader.sampler = dict(type='RepeatAugSampler', num_repeats=3, shuffle=True)
    cfg.model.train_cfg.augments = [dict(type='Mixup', alpha=0.8), dict(type='CutMix', alpha=1.0)]


def balance_classes(cfg: Config) -> None:
    """Data sets in data sets."""
    data = cfg.train_dataloader.dataset
    both = dict(type='ConcatDataset', datasets=[data, data])
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset',
        times=2,
        dataset=dict(type='ClassBalancedDataset', oversample_thr=0.6, dataset=data)
        if cfg.default_scope == 'mmpretrain'
        else both,
    )


def mix_images(cfg: Config) -> None:
    """Samples of several images, in batches of one size for some iterations."""
    data = cfg.train_dataloader.dataset
    data.pipeline = data.pipeline[:2]
    cfg.train_dataloader.dataset = dict(
        type='MultiImageMixDataset',
        dataset=data,
        pipeline=[
            dict(type='Mosaic', img_scale=(64, 64), pad_val=114.0),
            dict(type='RandomAffine', scaling_ratio_range=(0.5, 1.5), border=(-32, -32)),
            dict(type='MixUp', img_scale=(64, 64), ratio_range=(0.8, 1.6), pad_val=114.0),
            dict(type='YOLOXHSVRandomAug'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='PackDetInputs'),
        ],
    )
    resize = dict(type='BatchSyncRandomResize', random_size_range=(64, 160), interval=4)
    cfg.model.data_preprocessor.batch_augments = [resize]


def count_by_iteration(cfg: Config) -> None:
    """Checkpoints inside of epochs, as mmengine's hook writes them too, and no others."""
    cfg.default_hooks.checkpoint.update(by_epoch=False, interval=5, save_last=True)


def sample_finitely(cfg: Config) -> None:
    """A sampler that ends, in a run of iterations."""
    cfg.train_dataloader.sampler = dict(type='DefaultSampler', shuffle=True)


def accumulate(cfg: Config) -> None:
    cfg.optim_wrapper.accumulative_counts = 5
