"""Data files hold what was predicted, and are read by what they are meant for."""

import csv
import json

import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from mmwave.apis.predicting.writing import BEST, Item, data_writer, write_label_map, write_picture

CLASSES = ('sky', 'röad', 'car')
PALETTE = ((0, 0, 255), (255, 0, 0), (0, 255, 0))
PICTURE = Item('a/ä.png', None, 40, 30)
FRAME = Item('clip.mp4', 2, 40, 30, 0.08)
BOXES = [[1.0, 2.0, 11.5, 22.0], [0.0, 0.0, 40.0, 30.0]]


def detections(number=2, masks=True, dtype=torch.float32):
    found = InstanceData(
        bboxes=torch.tensor(BOXES, dtype=dtype)[:number],
        scores=torch.tensor([0.75, 0.25], dtype=dtype)[:number],
        labels=torch.tensor([2, 1])[:number],
    )
    if masks:
        found.masks = torch.zeros(number, 30, 40, dtype=torch.bool)
        found.masks[:1, 5:9, 3:8] = True
    return DetDataSample(pred_instances=found)


def written(tmp_path, task, form, *pairs, classes=CLASSES):
    with data_writer(task, form, tmp_path, classes) as writer:
        assert not list(tmp_path.glob('predictions*'))  # until it is whole
        for item, sample in pairs:
            writer.add(item, sample)
    (path,) = tmp_path.glob('predictions*')
    return path


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_coco_results_are_read_by_pycocotools(tmp_path, dtype):
    pairs = (PICTURE, detections(dtype=dtype)), (FRAME, detections(1, dtype=dtype))
    path = written(tmp_path, 'detection', 'coco', *pairs)
    assert path.name == 'predictions.json'
    truth = COCO(str(tmp_path / 'images.json'))
    found = truth.loadRes(str(path))
    assert [truth.imgs[i]['file_name'] for i in truth.getImgIds()] == ['a/ä.png', 'clip.mp4']
    assert truth.imgs[2]['frame'] == 2
    assert (truth.imgs[1]['width'], truth.imgs[1]['height']) == (40, 30)
    assert {c['id']: c['name'] for c in truth.cats.values()} == dict(enumerate(CLASSES, 1))
    first, second, third = found.anns.values()
    x1, y1, x2, y2 = BOXES[0]
    assert [one['image_id'] for one in (first, second, third)] == [1, 1, 2]
    listed = json.loads(path.read_text())
    assert listed[0]['bbox'] == [x1, y1, x2 - x1, y2 - y1]
    assert (first['category_id'], first['score']) == (3, 0.75)
    mask = coco_mask.decode(listed[0]['segmentation'])
    assert np.array_equal(mask, detections().pred_instances.masks[0].numpy())


def test_coco_results_of_nothing_and_without_masks(tmp_path):
    path = written(tmp_path, 'detection', 'coco', (PICTURE, detections(0)))
    assert json.loads(path.read_text()) == []
    assert len(json.loads((tmp_path / 'images.json').read_text())['images']) == 1
    (tmp_path / 'other').mkdir()
    pair = (PICTURE, detections(masks=False))
    path = written(tmp_path / 'other', 'detection', 'coco', pair)
    assert [sorted(one) for one in json.loads(path.read_text())] == [
        ['bbox', 'category_id', 'image_id', 'score']
    ] * 2


def test_lines_of_objects(tmp_path):
    path = written(tmp_path, 'detection', 'lines', (PICTURE, detections()), (FRAME, detections(0)))
    assert path.name == 'predictions.jsonl'
    first, second = map(json.loads, path.read_text(encoding='utf-8').splitlines())
    assert {k: first[k] for k in ('file', 'width', 'height')} == dict(
        file='a/ä.png', width=40, height=30
    )
    assert 'frame' not in first
    best, other = first['objects']
    assert (best['label'], best['name'], best['score'], best['bbox']) == (2, 'car', 0.75, BOXES[0])
    assert other['name'] == 'röad'
    assert coco_mask.area(best['mask']) == 20
    assert second == dict(file='clip.mp4', frame=2, seconds=0.08, width=40, height=30, objects=[])


def test_lines_of_label_maps(tmp_path):
    labels = torch.zeros(1, 30, 40).long()
    labels[:, :, :10] = 2
    sample = SegDataSample(pred_sem_seg=PixelData(data=labels))
    item = PICTURE._replace(labels='labels/ä.png')
    path = written(tmp_path, 'segmentation', 'lines', (item, sample))
    document = json.loads(path.read_text())
    assert document['labels'] == 'labels/ä.png'
    assert document['shares'] == {'sky': 0.75, 'car': 0.25}


def test_a_table_of_the_best_classes(tmp_path):
    scores = torch.tensor([0.1, 0.3, 0.05, 0.2, 0.05, 0.25, 0.05])
    sample = DataSample().set_pred_score(scores)
    names = tuple('abcdef')  # one is unknown
    path = written(
        tmp_path, 'classification', 'lines', (PICTURE, sample), (FRAME, sample), classes=names
    )
    assert path.name == 'predictions.csv'
    with open(path, encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * BEST
    assert [row['class'] for row in rows[:BEST]] == ['b', 'f', 'd', 'a', 'c']
    assert [row['rank'] for row in rows[:BEST]] == list('12345')
    assert np.float32(rows[0]['score']) == scores[1].numpy()
    assert {row['frame'] for row in rows[:BEST]} == {''}
    assert {row['frame'] for row in rows[BEST:]} == {'2'}


def test_an_error_leaves_no_file(tmp_path):
    def fail():
        with data_writer('detection', 'coco', tmp_path, CLASSES) as writer:
            writer.add(PICTURE, detections())
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(('number', 'mode'), [(3, 'P'), (256, 'P'), (300, 'I;16')])
def test_label_maps_hold_indices(tmp_path, number, mode):
    palette = [(i % 256, i // 256, 7) for i in range(number)]
    labels = np.arange(30 * 40).reshape(30, 40) % number
    path = tmp_path / 'deep/a.png'
    write_label_map(path, labels, palette)
    image = Image.open(path)
    assert image.mode == mode
    assert np.array_equal(np.asarray(image), labels)
    if mode == 'P':
        assert tuple(image.getpalette()[:9]) == tuple(c for p in palette[:3] for c in p)


def test_pictures(tmp_path):
    image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    write_picture(tmp_path / 'deep/a.png', image)
    assert np.array_equal(np.asarray(Image.open(tmp_path / 'deep/a.png')), image[..., ::-1])
