"""Write the shapes data set three times over from the same scenes.

    python projects/shapes/generate.py data/shapes

``coco/`` has the folders of COCO 2017 (boxes and masks), ``ade/`` those of ADE20K (label maps;
0 is the background), ``imagenet/`` those of ImageNet (one object an image), so a normal config
needs little more than another data root. A folder that already holds the same set is left alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from scenes import CLASSES, SPLITS, Scene, Shape, draw_scene

COCO_SPLITS = {'train': 'train2017', 'val': 'val2017'}
ADE_SPLITS = {'train': 'training', 'val': 'validation'}

# A crop shows a margin around its object and little of the neighbours.
_CROP_MARGIN = 0.1
_MAX_NEIGHBOURS = 0.1


def generate(out: Path, train: int = 800, val: int = 100, size: int = 128, seed: int = 0) -> bool:
    """Write the set into ``out``; return False when it was there already.

    Args:
        out: Folder to create. It may exist when it is empty or holds a shapes set.
        train: Scenes to train on.
        val: Held-out scenes.
        size: Side of the images in pixels.
        seed: Non-negative seed.

    Raises:
        ValueError: For a count below 1, a negative seed, too small a size, or a folder that
            holds something else.
    """
    counts = {'train': train, 'val': val}
    for name, value, least in (('train', train, 1), ('val', val, 1), ('seed', seed, 0)):
        if value < least:
            raise ValueError(f'{name} must be at least {least}, got {value}')
    spec = {**counts, 'size': size, 'seed': seed, 'generator': _fingerprint()}
    spec_file = out / 'spec.json'
    if spec_file.is_file():
        if json.loads(spec_file.read_text()) == spec:
            return False
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f'{out} holds something else than a shapes set; name another folder')

    # The set appears under its name only when it is whole.
    partial = out.with_name(out.name + '.partial')
    shutil.rmtree(partial, ignore_errors=True)
    for split in SPLITS:
        scenes = (draw_scene(seed, split, index, size) for index in range(counts[split]))
        _write_split(partial, split, scenes)
    (partial / 'spec.json').write_text(json.dumps(spec, indent=2) + '\n')
    if out.exists():
        shutil.rmtree(out)
    partial.rename(out)
    return True


def _fingerprint() -> str:
    """Changes with the code that draws and writes, so that old sets are not taken for new."""
    here = Path(__file__).resolve().parent
    code = b''.join((here / name).read_bytes() for name in ('scenes.py', 'generate.py'))
    return hashlib.sha256(code).hexdigest()[:16]


def _write_split(root: Path, split: str, scenes: Iterator[Scene]) -> None:
    coco_images = _folder(root / 'coco' / COCO_SPLITS[split])
    ade_images = _folder(root / 'ade' / 'images' / ADE_SPLITS[split])
    ade_labels = _folder(root / 'ade' / 'annotations' / ADE_SPLITS[split])
    crops = {i: _folder(root / 'imagenet' / split / name) for i, name in enumerate(CLASSES)}

    images: list[dict] = []
    annotations: list[dict] = []
    for image_id, scene in enumerate(scenes, start=1):
        name = f'{image_id:06d}'
        picture = _encode('.jpg', scene.image)
        (coco_images / f'{name}.jpg').write_bytes(picture)
        (ade_images / f'{name}.jpg').write_bytes(picture)
        (ade_labels / f'{name}.png').write_bytes(_encode('.png', scene.semantic))
        height, width = scene.image.shape[:2]
        images.append(
            {'id': image_id, 'file_name': f'{name}.jpg', 'height': height, 'width': width}
        )
        for shape in scene.shapes:
            annotation = _annotation(shape, image_id, annotation_id=len(annotations) + 1)
            annotations.append(annotation)
            crop = _crop(scene, shape)
            if crop is not None:
                file = crops[shape.label] / f'{name}_{annotation["id"]}.png'
                file.write_bytes(_encode('.png', crop))

    categories = [
        {'id': i, 'name': name, 'supercategory': 'shape'} for i, name in enumerate(CLASSES, start=1)
    ]
    content = {'images': images, 'annotations': annotations, 'categories': categories}
    target = _folder(root / 'coco' / 'annotations') / f'instances_{COCO_SPLITS[split]}.json'
    target.write_text(json.dumps(content))


def _annotation(shape: Shape, image_id: int, annotation_id: int) -> dict:
    return {
        'id': annotation_id,
        'image_id': image_id,
        'category_id': shape.label + 1,
        'bbox': list(shape.box),
        'area': shape.area,
        'segmentation': _run_lengths(shape.mask),
        'iscrowd': 0,
    }


def _run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed run lengths: columns first, beginning with a run of zeros."""
    pixels = mask.flatten(order='F')
    edges = np.flatnonzero(np.diff(pixels)) + 1
    counts = np.diff(np.concatenate([[0], edges, [pixels.size]])).tolist()
    return {'size': list(mask.shape), 'counts': [0, *counts] if pixels[0] else counts}


def _crop(scene: Scene, shape: Shape) -> np.ndarray | None:
    """The object in a square with a margin; None when too much of other objects is in it."""
    left, top, width, height = shape.box
    size = scene.image.shape[0]
    side = min(size, round(max(width, height) * (1 + 2 * _CROP_MARGIN)))
    x = int(np.clip(left + (width - side) // 2, 0, size - side))
    y = int(np.clip(top + (height - side) // 2, 0, size - side))
    window = (slice(y, y + side), slice(x, x + side))
    others = (scene.semantic[window] > 0) & ~shape.mask[window]
    return None if others.mean() > _MAX_NEIGHBOURS else scene.image[window]


def _encode(suffix: str, image: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == '.jpg' else []
    done, data = cv2.imencode(suffix, image, options)
    if not done:
        raise RuntimeError(f'OpenCV could not encode a {suffix} image')
    return data.tobytes()


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description='Write the shapes data set.')
    parser.add_argument('out', type=Path, help='folder to write, for example data/shapes')
    parser.add_argument('--train', type=int, default=800, help='scenes to train on')
    parser.add_argument('--val', type=int, default=100, help='held-out scenes')
    parser.add_argument('--size', type=int, default=128, help='side of the images in pixels')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    try:
        written = generate(args.out, args.train, args.val, args.size, args.seed)
    except ValueError as error:
        parser.error(str(error))
    how = 'wrote' if written else 'found'
    print(f'{how} {args.train} + {args.val} scenes of {args.size} px in {args.out}')


if __name__ == '__main__':
    main()
