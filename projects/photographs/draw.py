"""Draw what a segmentor makes of the photographs: in each the classes' colours, below their names.

python projects/photographs/draw.py CONFIG CHECKPOINT OUT.jpg
"""

import argparse
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmseg.apis import inference_model, init_model
from PIL import Image, ImageDraw, ImageFont

HEIGHT, GAP, LEGEND = 300, 8, 34
OPACITY = 0.55


def overlay(path: Path, labels: np.ndarray, palette: np.ndarray) -> Image.Image:
    """The photograph with its labels' colours over it, the first class left as it is."""
    image = np.asarray(Image.open(path).convert('RGB'))
    blended = image * (1 - OPACITY) + palette[labels] * OPACITY
    mixed = np.where(labels[..., None] > 0, blended, image).astype(np.uint8)
    width = round(mixed.shape[1] * HEIGHT / mixed.shape[0])
    return Image.fromarray(mixed).resize((width, HEIGHT), Image.Resampling.LANCZOS)


def draw(config: str, checkpoint: str, out: str) -> None:
    """Write the picture of all photographs of the config's test set."""
    cfg = Config.fromfile(config)
    model = init_model(cfg, checkpoint, device='cpu')
    palette = np.array(cfg.metainfo.palette, dtype=np.uint8)
    panels, seen = [], set()
    for path in sorted(Path(cfg.data_root, 'images').glob('*.jpg')):
        labels = inference_model(model, str(path)).pred_sem_seg.data[0].numpy()
        panels.append(overlay(path, labels, palette))
        seen |= set(np.unique(labels))
    width = sum(panel.width for panel in panels) + GAP * (len(panels) - 1)
    sheet = Image.new('RGB', (width, HEIGHT + LEGEND), 'white')
    left = 0
    for panel in panels:
        sheet.paste(panel, (left, 0))
        left += panel.width + GAP
    pen, font, left = ImageDraw.Draw(sheet), ImageFont.load_default(size=16), 0
    for index in sorted(seen - {0}):
        pen.rectangle((left, HEIGHT + 12, left + 16, HEIGHT + 28), tuple(palette[index]), 'gray')
        name = cfg.metainfo.classes[index]
        pen.text((left + 24, HEIGHT + 10), name, '#30343b', font)
        left += 48 + round(pen.textlength(name, font))
    sheet.save(out, quality=92)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Draw a segmentor on the photographs.')
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('out')
    arguments = parser.parse_args()
    draw(arguments.config, arguments.checkpoint, arguments.out)
