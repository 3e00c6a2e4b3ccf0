"""Draw a detector's boxes beside the ground truth of held-out scenes, in one picture.

python projects/shapes/draw.py CONFIG CHECKPOINT OUT.jpg
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Colour-blind safe, bright enough to stand on light and dark scenes.
COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#7a5cff')
PAPER, INK = '#ffffff', '#30343b'
CELL, GAP, HEADER = 256, 8, 34
COLUMNS = 4


class Box(NamedTuple):
    """A box to draw: left, top, right, bottom in pixels of the scene; score None for the truth."""

    corners: tuple[float, float, float, float]
    label: int
    score: float | None = None


class Pair(NamedTuple):
    """A scene, uint8 RGB (H, W, 3), with its true and its predicted boxes."""

    image: np.ndarray
    truth: Sequence[Box]
    predicted: Sequence[Box]


def sheet_size(scenes: int) -> tuple[int, int]:
    """Width and height in pixels of the picture of so many scenes."""
    bands = -(-scenes // COLUMNS)
    columns = min(scenes, COLUMNS)
    width = columns * (CELL + GAP) + GAP
    return width, bands * 2 * (HEADER + CELL) + GAP


def draw_sheet(pairs: Sequence[Pair], names: Sequence[str], title: str) -> Image.Image:
    """Rows of scenes: above with their true boxes, below with the predicted ones.

    Raises:
        ValueError: Without scenes, or with more classes than there are colours.
    """
    if not pairs:
        raise ValueError('no scenes to draw')
    if len(names) > len(COLOURS):
        raise ValueError(f'{len(names)} classes, but only {len(COLOURS)} colours')
    sheet = Image.new('RGB', sheet_size(len(pairs)), PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=19)
    for index, pair in enumerate(pairs):
        band, column = divmod(index, COLUMNS)
        x = GAP + column * (CELL + GAP)
        for half, (caption, boxes) in enumerate(
            (('ground truth', pair.truth), (title, pair.predicted))
        ):
            y = (2 * band + half) * (HEADER + CELL)
            if column == 0:
                pen.text((x, y + HEADER / 2 + 1), caption, INK, font, anchor='lm')
            sheet.paste(_cell(pair.image, boxes, names), (x, y + HEADER))
    return sheet


def _cell(image: np.ndarray, boxes: Sequence[Box], names: Sequence[str]) -> Image.Image:
    cell = Image.fromarray(image).resize((CELL, CELL), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(cell)
    font = ImageFont.load_default(size=14)
    scale = (CELL / image.shape[1], CELL / image.shape[0]) * 2
    # The surest box comes last and stays readable; no box crosses out a name.
    ordered = sorted(boxes, key=lambda box: box.score or 0.0)
    corners = [[a * b for a, b in zip(box.corners, scale, strict=True)] for box in ordered]
    for box, (x1, y1, x2, y2) in zip(ordered, corners, strict=True):
        pen.rectangle((x1 - 1, y1 - 1, x2 + 1, y2 + 1), outline=PAPER, width=4)
        pen.rectangle((x1, y1, x2, y2), outline=COLOURS[box.label], width=2)
    for box, (x1, y1, _, _) in zip(ordered, corners, strict=True):
        text = names[box.label] if box.score is None else f'{names[box.label]} {box.score:.2f}'
        width, height = pen.textlength(text, font) + 8, 18
        left = min(max(x1 - 1, 0), CELL - width)
        top = max(y1 - height, 0)
        pen.rectangle((left, top, left + width, top + height), fill=COLOURS[box.label])
        pen.text((left + 4, top + height / 2), text, PAPER, font, anchor='lm')
    return cell


def detect(config: str, checkpoint: str, scenes: int, score: float) -> tuple[list[Pair], list[str]]:
    """Run a detector on the first scenes of its validation set.

    Args:
        config: Config of a detector trained on the shapes.
        checkpoint: Its weights.
        scenes: How many scenes.
        score: Boxes below this score are left out.

    Returns:
        The scenes with both sets of boxes, and the names of the classes.
    """
    from mmdet.apis import inference_detector, init_detector
    from mmdet.registry import DATASETS

    from mmwave.checkpoint import register_safe_loader

    register_safe_loader()

    # For the eye one class an object: COCO's metric wants every class that might be right.
    one_class = {'model.test_cfg.nms.class_agnostic': True}
    model = init_detector(config, checkpoint, device='cpu', cfg_options=one_class)
    described = dict(model.cfg.val_dataloader.dataset, lazy_init=False)
    dataset = DATASETS.build(described)
    names = list(dataset.metainfo['classes'])
    pairs = []
    for index in range(min(scenes, len(dataset))):
        info = dataset.get_data_info(index)
        image = np.asarray(Image.open(info['img_path']).convert('RGB'))
        found = inference_detector(model, info['img_path']).pred_instances
        found = found[found.scores >= score].numpy()
        truth = [Box(tuple(one['bbox']), one['bbox_label']) for one in info['instances']]
        predicted = [
            Box(tuple(corners), int(label), float(sure))
            for corners, label, sure in zip(found.bboxes, found.labels, found.scores, strict=True)
        ]
        pairs.append(Pair(image, truth, predicted))
    return pairs, names


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description='Draw predictions beside the ground truth.')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('out', type=Path, help='picture to write, .jpg or .png')
    parser.add_argument('--scenes', type=int, default=8, help='how many held-out scenes')
    parser.add_argument('--score', type=float, default=0.4, help='least score of a drawn box')
    parser.add_argument('--title', default='Wave-MLP RetinaNet')
    args = parser.parse_args()
    if args.scenes < 1:
        parser.error(f'--scenes must be at least 1, got {args.scenes}')
    for file in (args.config, args.checkpoint):
        if not Path(file).is_file():
            parser.error(f'no such file: {file}')
    pairs, names = detect(args.config, args.checkpoint, args.scenes, args.score)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    draw_sheet(pairs, names, args.title).save(args.out, quality=80)
    print(f'drew {len(pairs)} held-out scenes: {args.out}')


if __name__ == '__main__':
    main()
