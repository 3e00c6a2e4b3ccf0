"""Predictions drawn into pictures: boxes, masks, colours of classes, labels."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .classes import Palette

Draw = Callable[[np.ndarray, Any, bool], np.ndarray]
"""Of a picture (BGR), its data sample and whether its size must stay: the drawn picture (BGR)."""

_OPACITY = 0.55
_LINE, _MARGIN, _GAP = 22, 6, 14  # of a legend, in pixels
_MOST_INSIDE = 12  # classes of a legend inside of a picture
_MOST_SHARE = 3  # a legend inside of a picture is at most one part of so many of its height


def drawer(task: str, classes: Sequence[str], palette: Palette, threshold: float) -> Draw:
    """Return what draws the predictions of a task.

    Args:
        task: of :data:`mmwave.apis.predicting.call.TASKS`.
        classes: names by index.
        palette: colours by index.
        threshold: least score of objects that are drawn.
    """
    if task == 'detection':
        return _boxes(classes, palette, threshold)
    if task == 'classification':
        return _label(classes)

    def draw(image: np.ndarray, sample: Any, same_size: bool) -> np.ndarray:
        labels = sample.pred_sem_seg.data[0].cpu().numpy()
        return overlay(image, labels, classes, palette, inside=same_size)

    return draw


def overlay(
    image: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    palette: Palette,
    *,
    inside: bool = False,
) -> np.ndarray:
    """Return a picture under the colours of its classes, with a legend of those that it has.

    Args:
        image: uint8 in BGR order (H, W, 3).
        labels: class indices (H, W); what is no index of a class is left as it is.
        classes: names by index.
        palette: colours by index.
        inside: draw the legend into the picture, not below it, with as many of the classes as there
            is room for.
    """
    known = (labels >= 0) & (labels < len(classes))
    table = np.array(palette, dtype=np.float32).reshape(-1, 3)[:, ::-1]  # BGR
    blended = image.astype(np.float32)
    blended[known] *= 1 - _OPACITY
    blended[known] += table[labels[known]] * _OPACITY
    drawn = blended.round().astype(np.uint8)
    counts = np.bincount(labels[known].ravel(), minlength=len(classes))
    seen = [int(index) for index in np.argsort(-counts, kind='stable') if counts[index]]
    if not seen:
        return drawn
    entries = [(classes[i], palette[i]) for i in seen]
    if not inside:
        legend = _legend(entries, drawn.shape[1])
        width = max(drawn.shape[1], legend.shape[1])
        return np.vstack([_widened(drawn, width), _widened(legend, width)])
    for number in range(min(len(entries), _MOST_INSIDE), 0, -1):
        legend = _legend(entries[:number], drawn.shape[1])
        height, width = legend.shape[:2]
        if height * _MOST_SHARE <= drawn.shape[0] and width <= drawn.shape[1]:
            drawn[:height, :width] = legend
            break
    return drawn


def _legend(entries: Sequence[tuple[str, tuple[int, int, int]]], width: int) -> np.ndarray:
    """Return names beside their colours on white (BGR), in lines of at most ``width`` pixels."""
    font = ImageFont.load_default(size=14)
    placed, left, top, widest = [], _MARGIN, _MARGIN, 0
    for name, colour in entries:
        length = _LINE + round(font.getlength(name))
        if left > _MARGIN and left + length + _MARGIN > width:
            left, top = _MARGIN, top + _LINE
        placed.append((left, top, name, colour))
        widest = max(widest, left + length + _MARGIN)
        left += length + _GAP
    sheet = Image.new('RGB', (widest, top + _LINE + _MARGIN), 'white')
    pen = ImageDraw.Draw(sheet)
    for left, top, name, colour in placed:
        pen.rectangle((left, top + 2, left + 14, top + 16), colour, 'gray')
        pen.text((left + _LINE - 2, top), name, '#202020', font)
    return np.asarray(sheet)[..., ::-1]


def _widened(image: np.ndarray, width: int) -> np.ndarray:
    return np.pad(
        image, ((0, 0), (0, width - image.shape[1]), (0, 0)), mode='constant', constant_values=255
    )


def _boxes(classes: Sequence[str], palette: Palette, threshold: float) -> Draw:
    from mmdet.visualization import DetLocalVisualizer

    visualizer = DetLocalVisualizer(name='mmwave.predict')
    visualizer.dataset_meta = dict(classes=tuple(classes), palette=list(palette))

    def draw(image: np.ndarray, sample: Any, same_size: bool) -> np.ndarray:
        rgb = np.ascontiguousarray(image[..., ::-1])
        chosen = above(sample, threshold)
        if not len(chosen.pred_instances):
            return image
        with warnings.catch_warnings():
            # Said of every box that reaches the picture's edge.
            warnings.filterwarnings('ignore', r'Warning: The \w+ is out of bounds, the drawn ')
            # What it is given as a threshold it leaves out itself.
            visualizer.add_datasample('picture', rgb, chosen, draw_gt=False, pred_score_thr=-1.0)
        return visualizer.get_image()[..., ::-1]

    return draw


def above(sample: Any, threshold: float) -> Any:
    """Return a detector's data sample with the objects that score a threshold or more.

    Their order is that of their scores, the lowest first, so that the best are drawn last. Numbers
    are float32, which drawing needs.
    """
    chosen = sample.cpu().clone()
    found = chosen.pred_instances
    found.scores = found.scores.float()
    found = found[found.scores >= threshold]
    found.bboxes = found.bboxes.float()
    chosen.pred_instances = found[found.scores.argsort()]
    return chosen


def _label(classes: Sequence[str]) -> Draw:
    from mmpretrain.visualization import UniversalVisualizer

    visualizer = UniversalVisualizer(name='mmwave.predict')

    def draw(image: np.ndarray, sample: Any, same_size: bool) -> np.ndarray:
        rgb = np.ascontiguousarray(image[..., ::-1])
        sample = sample.cpu()
        drawn = visualizer.visualize_cls(rgb, sample, classes=tuple(classes), draw_gt=False)
        return drawn[..., ::-1]

    return draw
