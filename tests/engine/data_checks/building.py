"""Small data sets of stock classes, models with heads alone, and the hook run on both."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from torch import nn

from mmwave.engine.data_checks.findings import DataError
from mmwave.engine.data_checks.hook import DataCheckHook


def write_image(path: Path, size: tuple[int, int] = (64, 48), **settings) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new('RGB', size).save(path, **settings)
    return path


def write_labels(path: Path, values: np.ndarray | list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values)).save(path)
    return path


def labels(*values: int, shape: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Return a map of zeros that begins with ``values``."""
    out = np.zeros(shape, dtype=np.uint8)
    out.ravel()[: len(values)] = values
    return out


def model(**heads: nn.Module) -> nn.Module:
    out = nn.Module()
    for name, head in heads.items():
        out.add_module(name, head)
    return out


def head(num_classes: int, **others) -> nn.Module:
    out = nn.Identity()
    out.num_classes = num_classes
    vars(out).update(others)
    return out


def check(dataset, mode: str = 'train', net: nn.Module | None = None, **settings) -> list[str]:
    """Run the hook on one data set; return what was logged."""
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(f'{record.levelname} {record.getMessage()}')
    logger = logging.Logger('check', level=logging.INFO)
    logger.addHandler(handler)
    parts = {f'{mode}_dataloader': SimpleNamespace(dataset=dataset), 'val_loop': None}
    runner = SimpleNamespace(model=net or nn.Module(), logger=logger, log_dir='', **parts)
    getattr(DataCheckHook(**settings), f'before_{mode}')(runner)
    return records


def error_of(dataset, *args, **kwargs) -> str:
    with pytest.raises(DataError) as caught:
        check(dataset, *args, **kwargs)
    message = str(caught.value)
    assert '\n' not in message
    return message


def detection_data(root: Path, boxes: list[dict], num_images: int = 2, **settings):
    from mmdet.datasets import CocoDataset

    images = [
        {'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 48} for i in range(num_images)
    ]
    for image in images:
        write_image(root / image['file_name'])
    good = {'image_id': 0, 'category_id': 3, 'bbox': [4, 4, 20, 20], 'area': 400}
    document = {
        'images': images,
        'annotations': [good | {'id': index} | box for index, box in enumerate(boxes)],
        'categories': [{'id': 3, 'name': 'cat'}, {'id': 7, 'name': 'dog'}],
    }
    (root / 'a.json').write_text(json.dumps(document))
    defaults = {'metainfo': {'classes': ('cat', 'dog')}, 'data_prefix': {'img': ''}}
    return CocoDataset(ann_file='a.json', data_root=str(root), **(defaults | settings))


def segmentation_steps(**settings) -> list[dict]:
    """Return the stock steps that read an image and, with ``settings``, its label map."""
    return [{'type': 'LoadImageFromFile'}, {'type': 'mmseg.LoadAnnotations', **settings}]


def segmentation_data(root: Path, maps: dict[str, np.ndarray], **settings):
    from mmseg.datasets import BaseSegDataset

    for name, values in maps.items():
        write_image(root / 'img' / f'{name}.jpg')
        write_labels(root / 'ann' / f'{name}.png', values)
    defaults = {
        'metainfo': {'classes': ('road', 'sky', 'tree')},
        'pipeline': segmentation_steps(),
        'serialize_data': False,  # it collects garbage, for half a second
    }
    prefix = {'img_path': 'img', 'seg_map_path': 'ann'}
    return BaseSegDataset(data_root=str(root), data_prefix=prefix, **(defaults | settings))


def classification_data(root: Path, lines: str, **settings):
    from mmpretrain.datasets import CustomDataset

    for line in lines.splitlines():
        write_image(root / line.split()[0])
    (root / 'list.txt').write_text(lines)
    settings = {'metainfo': {'classes': ['a', 'b']}} | settings
    return CustomDataset(data_root=str(root), ann_file='list.txt', **settings)


def write_folders(root: Path, **numbers: int) -> Path:
    """Write a folder for each name, with so many images in it."""
    for name, number in numbers.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for index in range(number):
            write_image(root / name / f'{index}.jpg')
    return root


def folder_data(root: Path, **settings):
    from mmpretrain.datasets import CustomDataset

    return CustomDataset(data_root=str(root), serialize_data=False, **settings)


def coco_file(root: Path, **changes) -> Path:
    """Write a COCO file of one image with one box; ``changes`` replace its parts."""
    document = {
        'images': [{'id': 0, 'file_name': '0.jpg', 'width': 64, 'height': 48}],
        'annotations': [{'id': 1, 'image_id': 0, 'category_id': 3, 'bbox': [4, 4, 20, 20]}],
        'categories': [{'id': 3, 'name': 'cat'}, {'id': 7, 'name': 'dog'}],
    }
    path = root / 'a.json'
    path.write_text(json.dumps(document | changes), encoding='utf-8')
    return path
