"""Each annotation is judged as mmdet and pycocotools will: every case is run by them as well."""

import numpy as np
import pytest

from mmwave.engine.data_checks.coco_form import judge
from mmwave.engine.data_checks.coco_truth import fill_in
from mmwave.engine.data_checks.coco_use import Use

from .coco_files import SQUARE, ap_of_truth, coco_metric, data_set, document, write

TRAINING, MASKS = Use(), Use(masks=True)

DROPPED = {
    'with w or h below 1': [[4, 4, 0.5, 9], [4, 4, 9, 0.99], [4, 4, 0, 9], [4, 4, 9, -2]],
    'outside of their image': [[64, 4, 5, 5], [4, -5, 5, 5], [-9, 4, 9, 9], [4, 48, 5, 5]],
}


@pytest.mark.parametrize('reason', DROPPED)
def test_boxes_that_mmdet_drops(tmp_path, reason):
    for box in DROPPED[reason]:
        _one_is_dropped(tmp_path, document({'bbox': box}), f'1 {reason}: id 1')


def test_other_reasons_to_drop_a_box(tmp_path):
    _one_is_dropped(tmp_path, document({'area': 0}), '1 with area <= 0: id 1')
    _one_is_dropped(tmp_path, document({'category_id': 99}), '1 of an unknown category: id 1')
    marked = "1 marked 'ignore' (evaluation counts them all the same): id 1"
    _one_is_dropped(tmp_path, document({'ignore': 1}), marked)
    content = document()
    content['images'][0]['width'] = 0
    (_, line) = judge(content).warnings(TRAINING)
    assert line.endswith('2 in images without a positive size: id 1, id 3')


def _one_is_dropped(tmp_path, content, reason):
    found = data_set(write(tmp_path, content))
    assert sum(len(found.get_data_info(i)['instances']) for i in range(2)) == 3
    assert judge(content).errors(TRAINING) == []
    assert judge(content).warnings(TRAINING) == [f'boxes that cannot be learnt from: {reason}']


def test_classes_left_out_by_choice_are_no_fault():
    found = judge(document({'category_id': 7}, without='segmentation'), frozenset(['cat']))
    assert found.errors(MASKS) == found.warnings(MASKS) == []


def test_not_finite_boxes():
    for number in (float('nan'), float('inf'), -float('inf')):
        (line,) = judge(document({'bbox': [4, 4, number, 9]})).errors(TRAINING)
        assert line == '1 annotations with NaN or infinite boxes: id 1'


def test_boxes_that_look_like_corners():
    random = np.random.default_rng(0)
    boxes = []
    for index in range(100):
        left, top = random.uniform(0, 40), random.uniform(0, 30)
        wide, high = random.uniform(2, 63 - left), random.uniform(2, 47 - top)
        boxes.append([index, left, top, wide, high])
    base = document()['annotations'][0]
    right = [base | {'id': i, 'bbox': [x, y, w, h]} for i, x, y, w, h in boxes]
    assert judge(document(annotations=right)).warnings(TRAINING) == []
    wrong = [base | {'id': i, 'bbox': [x, y, x + w, y + h]} for i, x, y, w, h in boxes]
    beyond = sum(2 * x + w > 66 or 2 * y + h > 50 for _, x, y, w, h in boxes)
    (line,) = judge(document(annotations=wrong)).warnings(TRAINING)
    assert line.startswith(f'{beyond} of 100 boxes reach beyond their image')
    assert 'corners [x1, y1, x2, y2]: id ' in line


# Mask: whether training fails, whether it ignores the mask, whether evaluation fails.
WRONG_MASKS = {
    'missing': (None, True, False, True),
    'empty': ([], True, False, True),
    'flat': (SQUARE[0], True, False, True),
    'text': ('abc', True, False, True),
    'null polygon': ([None], True, False, True),
    'odd': ([[1, 2, 3, 4, 5, 6, 7]], False, True, False),
    'four': ([[1, 2, 3, 4]], False, True, True),
    'two': ([[1, 2]], False, True, True),
    'empty polygon': ([[]], False, True, True),
    'three pairs': ([[[1, 2], [3, 4], [5, 6]]], False, True, True),
    'other dict': ({'a': 1}, False, True, True),
    'no counts': ({'counts': None, 'size': [48, 64]}, False, True, True),
    'another size': ({'counts': [100, 20], 'size': [10, 12]}, True, False, False),
    'one too short': ([*SQUARE, [1, 2]], False, False, False),
    'first too short': ([[1, 2, 3, 4], *SQUARE], False, False, False),
    'RLE': ({'counts': [100, 20, 2952], 'size': [48, 64]}, False, False, False),
}


@pytest.mark.parametrize('case', WRONG_MASKS)
def test_masks(tmp_path, case):
    from mmdet.datasets.transforms import LoadAnnotations

    mask, fails, ignored, unfit = WRONG_MASKS[case]
    content = document({'segmentation': mask})
    path = write(tmp_path, content)
    info = data_set(path).get_data_info(0) | {'ori_shape': (48, 64)}
    load = LoadAnnotations(with_bbox=True, with_mask=True)
    found = judge(content)
    assert found.errors(TRAINING) == found.warnings(TRAINING) == []
    assert bool(found.errors(MASKS)) == fails
    assert bool(found.warnings(MASKS)) == ignored
    if fails:
        with pytest.raises((KeyError, TypeError, ValueError)):
            load(info)
    else:
        assert load(info)['gt_ignore_flags'].tolist() == [ignored, False]
    assert bool(found.errors(Use(metrics=frozenset(['segm'])))) == unfit
    assert found.errors(Use(metrics=frozenset(['bbox']))) == []
    metric = coco_metric(path, 'segm')
    fill_in([metric])
    if unfit:
        with pytest.raises(Exception):  # noqa: B017 pycocotools raises plain ones
            ap_of_truth(metric, content)
    else:
        ap_of_truth(metric, content)


def test_masks_of_dropped_boxes_are_never_read():
    content = document({'area': 0}, without='segmentation')
    assert judge(content).errors(MASKS) == []


def test_what_the_metric_cannot_do_without(tmp_path):
    evaluated = Use(metrics=frozenset(['bbox']))
    for content, expected in (
        (document({'ignore': 1}, without='bbox'), '1 annotations without a box of 4 numbers: id 1'),
        (document({'iscrowd': 'no'}), "1 annotations with a text as 'iscrowd' that is no number"),
    ):
        path = write(tmp_path, content)
        data_set(path)
        assert judge(content).errors(TRAINING) == []
        assert expected in '; '.join(judge(content).errors(evaluated))
        metric = coco_metric(path)
        fill_in([metric])
        with pytest.raises((KeyError, ValueError)):
            ap_of_truth(metric, document())
