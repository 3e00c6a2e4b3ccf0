"""Small data of a user's own: COCO files, label maps, folders of classes."""

import json

import cv2
import numpy as np

CLASSES = ('bolt', 'nut', 'washer')


def draw(path, size=(40, 60), value=None):
    """Write an image of this height and width, of noise or of one value a row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if value is None:
        value = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    cv2.imwrite(str(path), value)


def write_coco(path, *, names=CLASSES, ids=None, images=3, masks=True, box=(5, 5, 20, 10)):
    """Write images and a COCO file with an object of each class in each image."""
    ids = ids or range(1, len(names) + 1)
    x, y, w, h = box
    path.with_suffix('').mkdir(exist_ok=True)
    annotations = [
        dict(
            id=1 + len(names) * image + index,
            image_id=image,
            category_id=category,
            bbox=list(box),
            area=w * h,
            iscrowd=0,
            **(dict(segmentation=[[x, y, x + w, y, x + w, y + h]]) if masks else {}),
        )
        for image in range(images)
        for index, category in enumerate(ids)
    ]
    document = dict(
        images=[dict(id=i, file_name=f'{i}.jpg', width=60, height=40) for i in range(images)],
        annotations=annotations,
        categories=[dict(id=i, name=n) for i, n in zip(ids, names, strict=True)],
    )
    for image in document['images']:
        draw(path.with_suffix('') / image['file_name'])
    path.write_text(json.dumps(document))
    return document


def label_map(*labels, height=40):
    """A label map with as many columns of each label."""
    return np.repeat(np.array([labels], np.uint8), 60 // len(labels), axis=1).repeat(height, axis=0)


def write_masks(root, split, *maps):
    for index, labels in enumerate(maps):
        draw(root / 'images' / split / f'{index}.jpg', labels.shape)
        draw(root / 'masks' / split / f'{index}.png', value=labels)


def write_folders(root, split, counts):
    for name, count in counts.items():
        (root / split / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            draw(root / split / name / f'{index}.jpg')
