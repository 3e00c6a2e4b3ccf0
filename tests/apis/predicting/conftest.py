"""A tiny model of each task with weights, on images of noise."""

from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope

from tests.contracts import randomise_norms
from tests.faults.tasks import write_task

# Every object that the model proposes counts, whatever untrained ones score.
_SMALL = {'test_dataloader.dataset.pipeline.1.scale': (96, 96)}
OPTIONS = {
    'detection': {'model.test_cfg.score_thr': 0.0, 'model.test_cfg.max_per_img': 10, **_SMALL},
    'instances': {
        'model.test_cfg.rcnn.score_thr': 0.0,
        'model.test_cfg.rcnn.max_per_img': 5,
        **_SMALL,
    },
}


class Tiny(NamedTuple):
    """A task: its folder, config, weights, ``--cfg-options`` and some pictures of one folder."""

    name: str
    folder: Path
    config: str
    weights: str
    options: dict
    pictures: list[str]


def write_tiny(folder: Path, task: str) -> Tiny:
    folder.mkdir(parents=True)
    config = write_task(folder, task, num_images=4)
    cfg = Config.fromfile(config)
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope(cfg.default_scope):
        model = MODELS.build(cfg.model)
    randomise_norms(model)
    weights = folder / 'weights.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), weights)
    pictures = sorted(str(path) for path in (folder / 'data/train/a').glob('*.png'))
    return Tiny(task, folder, str(config), str(weights), OPTIONS.get(task, {}), pictures)


@pytest.fixture(scope='session')
def tiny(tmp_path_factory):
    """Of a task's name: the task, written once."""
    made = {}

    def of(task: str) -> Tiny:
        if task not in made:
            made[task] = write_tiny(tmp_path_factory.mktemp('tiny') / task, task)
        return made[task]

    return of
