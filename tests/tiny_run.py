"""A classifier's run of seconds, on small images of a folder for each of two classes."""

from pathlib import Path

import cv2
import numpy as np

from tests.contracts import ROOT

# Model and data; a run adds its optimizer and length.
CLASSIFIER = """
_base_ = '{leaf}'
model = dict(
    backbone=dict(
        arch=dict(_delete_=True, depths=[1, 1, 1, 1], dims=[8, 8, 16, 16], norm='BN'),
        drop_path_rate=0.0,
    ),
    head=dict(in_channels=16, num_classes=2),
    train_cfg=None,
)
data_preprocessor = dict(num_classes=2)
dataset = dict(
    data_root='{data}',
    metainfo=dict(classes=['a', 'b']),
    pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
)
train_dataloader = dict(
    batch_size={batch}, num_workers=0, persistent_workers=False, dataset=dataset
)
val_dataloader = train_dataloader
test_dataloader = val_dataloader
val_evaluator = dict(topk=1)
test_evaluator = val_evaluator
"""
CONFIG = (
    CLASSIFIER
    + """
optim_wrapper = dict(
    _delete_=True, type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01), clip_grad=None
)
param_scheduler = None
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
train_cfg = dict(max_epochs=1)
randomness = dict(seed=0)
# mmengine keeps visualizers by name for as long as a process runs.
visualizer = dict(name='{name}')
"""
)
TRAIN = {'a/0.png': (64, 64), 'b/0.png': (64, 80), 'a/1.png': (70, 64), 'b/1.png': (64, 64)}


def write_run(folder: Path, val: dict[str, tuple[int, int]] | None = None) -> Path:
    """Write images of these heights and widths and a config; return the config's path."""
    rng = np.random.default_rng(0)
    for split, images in (('train', TRAIN), ('val', val or TRAIN)):
        for name, size in images.items():
            path = folder / 'data' / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 255, (*size, 3), dtype=np.uint8))
    leaf = ROOT / 'configs/wavemlp/wavemlp-t_in1k.py'
    text = CONFIG.format(leaf=leaf, data=folder / 'data', batch=1, name=folder.name)
    (folder / 'tiny.py').write_text(text)
    return folder / 'tiny.py'
