"""Write three photographs and label maps drawn by hand, in ADE20K's layout.

python projects/photographs/prepare.py data/photographs

The photographs come with scikit-image, which mmdetection's dependencies bring: Eileen Collins
(NASA, public domain), Chelsea the cat (Stefan van der Walt, CC0), an espresso (Rachel Michetti,
CC0).
"""

import argparse
from pathlib import Path

import skimage.data
from PIL import Image, ImageDraw

CLASSES = (
    *('background', 'person', 'flag', 'space shuttle', 'helmet', 'cat', 'cup', 'saucer', 'spoon'),
)

# Outlines in pixels, "x,y x,y ...", from back to front. An ellipse is the box that it fills.
OUTLINES = {
    'astronaut': [
        ('flag', '0,0 50,0 62,80 85,180 97,214 55,262 40,330 22,440 30,512 0,512'),
        (
            'space shuttle',
            '413,0 431,2 442,40 455,60 456,200 460,270 470,280 420,288 368,282 372,232 354,226 '
            '374,190 380,85 396,72 398,42',
        ),
        (
            'person',
            '155,95 160,55 180,32 210,16 240,15 272,26 297,55 303,90 295,118 278,132 268,165 '
            '262,178 290,200 304,235 336,252 352,285 363,325 361,352 320,365 285,420 280,512 '
            '60,512 24,490 24,430 40,330 55,268 95,222 117,205 125,170 150,152 185,150 182,120 '
            '163,112',
        ),
        ('helmet', 'ellipse 280,345 512,535'),
    ],
    'chelsea': [
        (
            'cat',
            '0,300 0,128 32,110 38,55 34,0 400,0 366,72 360,110 362,165 335,205 345,240 385,265 '
            '390,300',
        ),
    ],
    'coffee': [
        ('saucer', 'ellipse 76,76 480,386'),
        ('cup', 'ellipse 174,19 410,205'),
        (
            'cup',
            '175,100 408,130 385,195 350,235 300,258 258,250 245,300 215,308 198,295 202,262 '
            '222,232 190,190',
        ),
        ('spoon', '395,72 410,68 424,76 416,100 385,200 378,225 365,220 404,110'),
        ('spoon', 'ellipse 327,234 405,326'),
    ],
}


def label_map(name: str, size: tuple[int, int]) -> Image.Image:
    """The map of ``size`` (width, height) whose pixels are indices of :data:`CLASSES`."""
    labels = Image.new('L', size)
    pen = ImageDraw.Draw(labels)
    for kind, outline in OUTLINES[name]:
        draw = pen.ellipse if outline.startswith('ellipse ') else pen.polygon
        corners = outline.removeprefix('ellipse ').split()
        draw([tuple(map(int, xy.split(','))) for xy in corners], fill=CLASSES.index(kind))
    return labels


def prepare(folder: Path) -> None:
    """Write photographs and label maps below ``folder``; those to train on are those evaluated."""
    for part in ('images', 'annotations'):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in OUTLINES:
        image = Image.fromarray(getattr(skimage.data, name)())
        image.save(folder / 'images' / f'{name}.jpg', quality=95)
        label_map(name, image.size).save(folder / 'annotations' / f'{name}.png')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description='Write photographs and their label maps.')
    parser.add_argument('folder', type=Path)
    prepare(parser.parse_args().folder)
