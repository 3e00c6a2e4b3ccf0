"""Truth given as predictions scores 1, whatever the file lacks that pycocotools needs."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from mmwave.engine.data_checks.coco_truth import complete_truth

from .building import check, detection_data

NUM_BOXES = 9


def metric_of(root: Path, **changes):
    """Return a CocoMetric on a file of nine boxes in three images."""
    from mmdet.evaluation import CocoMetric

    images = [{'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 48} for i in range(3)]
    box = {'category_id': 3, 'bbox': [4, 4, 20, 20], 'area': 400, 'iscrowd': 0}
    boxes = [
        box | {'id': n + 1, 'image_id': n % 3, 'bbox': [4 + 5 * (n // 3), 4, 20, 20]}
        for n in range(NUM_BOXES)
    ]
    for entry in boxes:
        for key, change in changes.items():
            entry[key] = change(entry)
            if entry[key] is ...:
                del entry[key]
    content = {'images': images, 'annotations': boxes, 'categories': [{'id': 3, 'name': 'cat'}]}
    path = root / 'truth.json'
    path.write_text(json.dumps(content))
    metric = CocoMetric(ann_file=str(path), metric='bbox')
    metric.dataset_meta = {'classes': ('cat',)}
    return metric, content


def average_precision(metric, content) -> float:
    for image in content['images']:
        boxes = [a['bbox'] for a in content['annotations'] if a['image_id'] == image['id']]
        corners = torch.tensor([[x, y, x + w, y + h] for x, y, w, h in boxes]).float()
        found = {'bboxes': corners, 'labels': torch.zeros(len(boxes)).long()}
        found['scores'] = torch.ones(len(boxes)) * 0.9
        sample = {'img_id': image['id'], 'ori_shape': (48, 64), 'pred_instances': found}
        metric.process({}, [sample])
    return metric.evaluate(len(content['images']))['coco/bbox_mAP']


def test_a_good_file_stays_as_it_is(tmp_path):
    metric, content = metric_of(tmp_path)
    assert complete_truth(SimpleNamespace(metrics=[metric])) == []
    assert list(metric._coco_api.anns) == list(range(1, NUM_BOXES + 1))
    assert average_precision(metric, content) == 1


@pytest.mark.parametrize(
    ('changes', 'alone', 'told'),
    [
        ({'id': lambda a: a['id'] - 1}, 'less', '1 annotations have the id 0'),
        ({'id': lambda a: f'n{a["id"]}'}, ValueError, f'{NUM_BOXES} annotations have the id 0'),
        ({'iscrowd': lambda a: ...}, KeyError, f'iscrowd is missing in {NUM_BOXES} annotations'),
        ({'iscrowd': lambda a: None}, TypeError, f'iscrowd is missing in {NUM_BOXES} annotations'),
        ({'area': lambda a: ...}, KeyError, f'area is missing in {NUM_BOXES} annotations'),
    ],
)
def test_what_is_missing_is_filled_in(tmp_path, changes, alone, told):
    if alone == 'less':
        assert average_precision(*metric_of(tmp_path, **changes)) < 0.95
    else:
        with pytest.raises(alone):
            average_precision(*metric_of(tmp_path, **changes))
    metric, content = metric_of(tmp_path, **changes)
    (line,) = complete_truth(SimpleNamespace(metrics=[SimpleNamespace(), metric]))
    assert line.startswith(told)
    assert average_precision(metric, content) == 1
    # Nothing is left for a second time.
    assert complete_truth(SimpleNamespace(metrics=[metric])) == []


def test_the_area_is_that_of_the_box(tmp_path):
    metric, _ = metric_of(tmp_path, area=lambda a: ...)
    complete_truth(SimpleNamespace(metrics=[metric]))
    assert {a['area'] for a in metric._coco_api.anns.values()} == {20 * 20}


def test_evaluators_without_coco_metrics():
    assert complete_truth(None) == []
    assert complete_truth(SimpleNamespace(metrics=[SimpleNamespace()])) == []


@pytest.mark.parametrize('mode', ['val', 'test', 'train'])
def test_the_hook_completes_it_before_the_loop(tmp_path, mode):
    metric, content = metric_of(tmp_path, id=lambda a: a['id'] - 1)
    loop = SimpleNamespace(evaluator=SimpleNamespace(metrics=[metric]))
    loops = {'val_loop': loop} if mode == 'train' else {f'{mode}_loop': loop}
    dataset = detection_data(tmp_path, [{}])
    start = f'WARNING {"val" if mode == "train" else mode} metric: 1 annotations have the id 0'
    assert any(line.startswith(start) for line in check(dataset, mode, loops=loops))
    assert average_precision(metric, content) == 1
