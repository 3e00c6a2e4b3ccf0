"""A picture of several labelled images, drawn by the library's own visualizer."""

import math
import os
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import VISUALIZERS

from mmwave.engine.data_checks.datasets import metainfo, unwrap
from mmwave.engine.data_checks.hook import spaced
from mmwave.engine.data_checks.pipeline import steps

COLUMNS, ROWS = 4, 3
TILE = 320
"""Pixels of the longer side of an image in the picture."""
_GAP = 4  # pixels between images
_BACKGROUND = 255


def write_sheet(cfg: Config, dataset: Any, path: Path) -> list[Path]:
    """Write a picture of images of a data set, evenly spaced, with their boxes, masks or labels.

    The images are those of the files, as the pipeline's first steps load them: not augmented.

    Args:
        cfg: whose visualizer draws.
        dataset: built; of several in wrappers the first is drawn.
        path: of the picture; its folder is made where it is missing.

    Returns:
        The path, nothing where no image can be drawn: the steps that load are the user's own.
    """
    inner = next(unwrap(dataset)).dataset
    loading = [step for step in steps(inner) if type(step).__name__.startswith(('Load', 'Pack'))]
    if len(inner) == 0 or not loading or not type(loading[-1]).__name__.startswith('Pack'):
        return []
    visualizer = _visualizer(cfg, inner)
    tiles = []
    for index in spaced(range(len(inner)), COLUMNS * ROWS):
        tile = _tile(visualizer, inner, index, loading)
        if tile is not None:
            tiles.append(tile)
    if not tiles:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    done, encoded = cv2.imencode(path.suffix, _arranged(tiles))
    assert done
    path.write_bytes(encoded.tobytes())
    return [path]


def _visualizer(cfg: Config, dataset: Any) -> Any:
    settings = dict(cfg.get('visualizer') or dict(type='Visualizer'))
    # Visualizers are kept by name for as long as a process runs.
    settings.update(name=f'contact-sheet-{id(dataset)}', vis_backends=None, save_dir=None)
    visualizer = VISUALIZERS.build(settings)
    visualizer.dataset_meta = metainfo(dataset)
    return visualizer


def _tile(visualizer: Any, dataset: Any, index: int, loading: Sequence[Any]) -> np.ndarray | None:
    """Return one image (H, W, 3) in BGR with its labels, None where it cannot be loaded."""
    results: Any = dataset.get_data_info(index)
    try:
        for step in loading:
            results = step(results)
    except Exception:  # what is broken is counted elsewhere
        return None
    if not isinstance(results, Mapping):
        return None
    image = results['inputs'].permute(1, 2, 0).numpy()
    if image.ndim != 3 or image.shape[2] != 3:
        return None
    image = np.ascontiguousarray(image[..., ::-1])  # visualizers draw on RGB
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Of boxes that reach to the edge, one each.
        warnings.filterwarnings('ignore', message='Warning: The .* is out of bounds')
        file = os.path.join(folder, 'tile.png')
        _draw(visualizer, image, results['data_samples'], file)
        drawn = cv2.imread(file)
    if drawn is None:
        return None
    scale = TILE / max(drawn.shape[:2])
    size = [max(1, round(side * scale)) for side in drawn.shape[1::-1]]
    return cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)


def _draw(visualizer: Any, image: np.ndarray, sample: Any, file: str) -> None:
    boxes = getattr(sample.get('gt_instances'), 'bboxes', None)
    if hasattr(boxes, 'tensor'):  # mmdet's own class of boxes, which its visualizer does not know
        sample.gt_instances.bboxes = boxes.tensor
    if hasattr(visualizer, 'visualize_cls'):
        visualizer.visualize_cls(image, sample, draw_pred=False, out_file=file)
    else:
        visualizer.add_datasample(
            'sheet', image, sample, draw_gt=True, draw_pred=False, show=False, out_file=file
        )


def _arranged(tiles: Sequence[np.ndarray]) -> np.ndarray:
    columns = min(COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    side = TILE + _GAP
    sheet = np.full((rows * side + _GAP, columns * side + _GAP, 3), _BACKGROUND, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (_GAP + part * side for part in divmod(number, columns))
        sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return sheet
