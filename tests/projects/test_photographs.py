"""The photographs: labels that fit them, a config that knows their classes, a picture."""

import importlib.util
import sys

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from tests.contracts import ROOT

PHOTOGRAPHS = ROOT / 'projects' / 'photographs'
sys.path.insert(0, str(PHOTOGRAPHS))

prepare = pytest.importorskip('prepare', reason='the photographs come with scikit-image')


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('photographs')
    prepare.prepare(folder)
    return folder


def test_every_class_is_labelled_somewhere(folder):
    seen = set()
    images = sorted((folder / 'images').iterdir())
    for path in images:
        labels = Image.open(folder / 'annotations' / f'{path.stem}.png')
        with Image.open(path) as image:
            assert image.size == labels.size
        seen |= set(np.unique(labels))
    assert len(images) == 3
    assert seen == set(range(len(prepare.CLASSES)))


def test_the_config_knows_the_classes():
    cfg = Config.fromfile(PHOTOGRAPHS / 'configs/wavemlp-t_sem-fpn_photographs.py')
    assert tuple(cfg.metainfo.classes) == prepare.CLASSES
    assert len(cfg.metainfo.palette) == len(prepare.CLASSES) == cfg.model.decode_head.num_classes


def test_the_background_is_left_as_it_is(folder):
    pytest.importorskip('mmseg')
    # projects/shapes has a draw.py too.
    spec = importlib.util.spec_from_file_location('draw_photographs', PHOTOGRAPHS / 'draw.py')
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    path = folder / 'images/astronaut.jpg'
    photograph = Image.open(path)
    labels = np.zeros(photograph.size[::-1], dtype=np.int64)
    labels[:, 256:] = 1
    palette = np.array([[0, 0, 0], [255, 0, 0]], dtype=np.uint8)
    shown = np.asarray(draw.overlay(path, labels, palette), dtype=int)
    plain = np.asarray(photograph.resize(shown.shape[1::-1], Image.Resampling.LANCZOS), dtype=int)
    half = shown.shape[1] // 2
    assert abs(shown - plain)[:, : half - 4].max() <= 1
    assert (shown - plain)[:, half + 4 :, 0].min() >= -2
    assert (plain - shown)[:, half + 4 :, 1:].mean() > 10
