"""A picture of labelled images."""

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS, DefaultScope

from mmwave.apis import load_config
from mmwave.apis.contact_sheet import COLUMNS, ROWS, TILE, write_sheet
from tests.faults.tasks import NUM_IMAGES, write_task

GAP = 4


@pytest.fixture
def sheet(tmp_path):
    """Write the picture of a task's training data, from which files are removed before."""

    def write(task, remove=(), **options):
        cfg = load_config(str(write_task(tmp_path, task)))
        cfg.merge_from_dict(options)
        with DefaultScope.overwrite_default_scope(cfg.default_scope):
            dataset = DATASETS.build(cfg.train_dataloader.dataset)
            for name in remove:
                (tmp_path / 'data/train/a' / name).unlink()
            return write_sheet(cfg, dataset, tmp_path / 'new/sheet.png')

    return write


def tiles(path):
    picture = cv2.imread(str(path)).astype(int)
    side = TILE + GAP
    rows, columns = (length // side for length in picture.shape[:2])
    return [
        picture[GAP + row * side :][:TILE, GAP + column * side :][:, :TILE]
        for row in range(rows)
        for column in range(columns)
    ]


@pytest.mark.parametrize('task', ['classification', 'detection', 'instances', 'segmentation'])
def test_images_with_their_labels(sheet, task, tmp_path):
    (path,) = sheet(task)
    first, *others = tiles(path)
    assert len(others) == COLUMNS * ROWS - 1
    # Something is drawn on them, and they are not the same.
    plain = cv2.imread(str(tmp_path / 'data/train/a/0.png'))
    plain = cv2.resize(plain, (TILE, TILE), interpolation=cv2.INTER_AREA)
    assert 1 < np.abs(first - plain).mean() < 100
    assert all((first != other).any() for other in others)


def test_images_that_cannot_be_loaded_are_left_out(sheet):
    (path,) = sheet('detection', remove=['3.png', '7.png'])
    whole = [tile for tile in tiles(path) if tile.min() < 255]
    assert len(whole) == NUM_IMAGES - 2
    assert sheet('detection', remove=[f'{index}.png' for index in range(NUM_IMAGES)]) == []


def test_steps_of_the_user_s_own_are_not_guessed(sheet):
    assert sheet('classification', **{'train_dataloader.dataset.pipeline': []}) == []
