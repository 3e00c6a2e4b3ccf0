"""COCO files of two images with two boxes each, what mmdet makes of them, and AP of the truth."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

SQUARE = [[4, 4, 24, 4, 24, 24, 4, 24]]


def document(first: dict | None = None, without: str = '', **changes) -> dict[str, Any]:
    """Return a good file; ``first`` and ``without`` change its first annotation."""
    images = [{'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 48} for i in (1, 2)]
    box = {'category_id': 3, 'bbox': [4, 4, 20, 20], 'area': 400, 'iscrowd': 0}
    box['segmentation'] = SQUARE
    annotations = [{'id': 1 + i, 'image_id': 1 + i % 2, **box} for i in range(4)]
    for index, annotation in enumerate(annotations):
        annotation['bbox'] = [4 + 10 * index, 4, 20, 20]
    annotations[0] |= first or {}
    annotations[0].pop(without, None)
    categories = [{'id': 3, 'name': 'cat'}, {'id': 7, 'name': 'dog'}]
    return {'images': images, 'annotations': annotations, 'categories': categories} | changes


def write(root: Path, content: Any) -> Path:
    path = root / 'a.json'
    path.write_text(json.dumps(content))
    return path


def data_set(path: Path, **settings):
    from mmdet.datasets import CocoDataset

    defaults = {'metainfo': {'classes': ('cat', 'dog')}, 'data_prefix': {'img': ''}}
    return CocoDataset(ann_file=str(path), pipeline=[], **(defaults | settings))


def coco_metric(path: Path, kind: str = 'bbox'):
    from mmdet.evaluation import CocoMetric

    metric = CocoMetric(ann_file=str(path), metric=kind)
    metric.dataset_meta = {'classes': ('cat', 'dog')}
    return metric


def ap_of_truth(metric, content: dict) -> float:
    """Return the AP of the boxes of ``content`` as predictions."""
    kind = metric.metrics[0]
    for image in content['images']:
        boxes = [a for a in content['annotations'] if a['image_id'] == image['id']]
        corners = [[x, y, x + w, y + h] for x, y, w, h in (box['bbox'] for box in boxes)]
        found = {
            'bboxes': torch.tensor(corners, dtype=torch.float32).reshape(-1, 4),
            'scores': torch.full((len(boxes),), 0.9),
            'labels': torch.zeros(len(boxes), dtype=torch.long),
        }
        if kind == 'segm':
            masks = np.zeros((len(boxes), 48, 64), bool)
            masks[:, 4:24, 4:24] = True
            found['masks'] = torch.tensor(masks)
        sample = {'pred_instances': found, 'img_id': image['id'], 'ori_shape': (48, 64)}
        metric.process({}, [sample])
    return metric.compute_metrics(metric.results)[f'{kind}_mAP']
