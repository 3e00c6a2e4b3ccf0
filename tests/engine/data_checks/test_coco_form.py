"""Each mistake in a COCO file is told as mmdet and pycocotools, which run here too, take it."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmwave.engine.data_checks.coco_file import read_report
from mmwave.engine.data_checks.coco_form import judge
from mmwave.engine.data_checks.tally import tally_lines

from .building import coco_file

CATEGORIES = [{'id': 3, 'name': 'cat'}, {'id': 7, 'name': 'dog'}]
IMAGES = [{'id': i, 'file_name': f'{i}.jpg', 'width': 64, 'height': 48} for i in (1, 2)]
POLYGON = [[4, 4, 24, 4, 24, 24]]
BOX = {'id': 5, 'image_id': 1, 'category_id': 3, 'bbox': [4, 4, 20, 20], 'area': 400}
BOX |= {'iscrowd': 0, 'segmentation': POLYGON}


def without(source: dict, *keys: str) -> dict:
    return {key: value for key, value in source.items() if key not in keys}


def document(*annotations: dict, **changes) -> dict:
    parts = {'images': IMAGES, 'annotations': list(annotations), 'categories': CATEGORIES}
    return parts | changes


def load(root: Path, content: dict):
    from mmdet.datasets import CocoDataset

    path = root / 'a.json'
    path.write_text(json.dumps(content))
    settings = {'metainfo': {'classes': ('cat', 'dog')}, 'test_mode': True}
    settings |= {'data_prefix': {'img': ''}}
    return CocoDataset(ann_file=str(path), serialize_data=False, **settings)


def test_a_good_file():
    report = judge(document(BOX, BOX | {'id': 6, 'iscrowd': 1}))
    assert report.errors(masks=True, metric_masks=True) == {}
    assert report.warnings(masks=True) == {}
    assert (report.unmarked, report.unmatched) == (0, [])
    assert (report.names, report.num_images, report.num_annotations) == (('cat', 'dog'), 2, 2)


NO_BOX = 'annotations whose bbox is no list of four numbers'
ANNOTATION_FAULTS = [
    (without(BOX, 'id'), 'annotations whose id is missing: entry 0 of annotations'),
    (without(BOX, 'image_id'), 'annotations whose image_id is missing: annotation 5'),
    (without(BOX, 'category_id'), 'annotations whose category_id is missing: annotation 5'),
    (BOX | {'id': [5]}, 'annotations whose id is a list or dict: annotation [5]'),
    (without(BOX, 'bbox'), f'{NO_BOX}: annotation 5 (missing)'),
    *(
        (BOX | {'bbox': box}, f'{NO_BOX}: annotation 5 ({box})')
        for box in (None, [], [1, 2, 3], ['4', '4', '9', '9'])
    ),
    (without(BOX, 'area'), 'annotations whose area is no number: annotation 5 (missing)'),
    (BOX | {'area': None}, 'annotations whose area is no number: annotation 5 (None)'),
]


@pytest.mark.parametrize(('annotation', 'message'), ANNOTATION_FAULTS)
def test_annotations_that_mmdet_stops_at(tmp_path, annotation, message):
    content = document(annotation)
    assert tally_lines(judge(content).errors()) == [f'1 {message}']
    with pytest.raises((KeyError, TypeError, ValueError)):
        load(tmp_path, content)


NO_SIZE = 'images whose width or height is no number'
IMAGE_FAULTS = [
    *((without(IMAGES[0], key), f'images without {key}') for key in ('id', 'width', 'height')),
    (without(IMAGES[0], 'file_name'), 'images without file_name: entry 0'),
    (IMAGES[0] | {'width': None}, f"{NO_SIZE}: '1.jpg' (None x 48)"),
    (IMAGES[0] | {'height': '48'}, f"{NO_SIZE}: '1.jpg' (64 x '48')"),
    (IMAGES[0] | {'file_name': 7}, 'images whose file_name is no text: 7'),
    (IMAGES[0] | {'id': {}}, "images whose id is a list or dict: '1.jpg'"),
]


@pytest.mark.parametrize(('image', 'message'), IMAGE_FAULTS)
def test_images_that_mmdet_stops_at(tmp_path, image, message):
    content = document(BOX, images=[image, IMAGES[1]])
    assert f'1 {message}' in '; '.join(tally_lines(judge(content).errors()))
    with pytest.raises((KeyError, TypeError, ValueError)):
        load(tmp_path, content)


def test_ids_twice(tmp_path):
    content = document(BOX, BOX | {'bbox': [0, 0, 9, 9]}, BOX | {'id': 6})
    assert tally_lines(judge(content).errors()) == ['1 annotation ids twice: 5']
    with pytest.raises(AssertionError):
        load(tmp_path, content)
    # Two images of one id: the second takes the boxes of the first, in silence.
    content = document(BOX, images=[IMAGES[0], IMAGES[1] | {'id': 1}])
    (line,) = tally_lines(judge(content).errors())
    assert line == "1 image ids of two images: 1 ('1.jpg' and '2.jpg')"
    (info,) = load(tmp_path, content)
    assert info['img_path'].endswith('2.jpg')
    assert len(info['instances']) == 1
    content = document(BOX, images=[*IMAGES, IMAGES[0]])
    assert judge(content).errors() == {}
    assert tally_lines(judge(content).warnings()) == ["1 images listed twice: 1 ('1.jpg')"]
    content = document(BOX, categories=[CATEGORIES[0], CATEGORIES[1] | {'id': 3}])
    assert tally_lines(judge(content).errors()) == ["1 category ids twice: id 3 of 'cat' and 'dog'"]


@pytest.mark.parametrize('what', ['image', 'category'])
@pytest.mark.parametrize('text', ['above', 'below'])
def test_ids_of_two_types_lose_every_box(tmp_path, what, text):
    name = {'image': 'images', 'category': 'categories'}[what]
    entries = {'images': IMAGES, 'categories': CATEGORIES}[name]
    value = BOX[f'{what}_id']
    if text == 'above':
        content = document(BOX, **{name: [entry | {'id': str(entry['id'])} for entry in entries]})
        types = 'numbers', 'text'
    else:
        value = str(value)
        content = document(BOX | {f'{what}_id': value})
        types = 'text', 'numbers'
    (line,) = tally_lines(judge(content).errors())
    assert line == (
        f'1 annotations whose {what}_id is {types[0]}, where the ids of the {name} are {types[1]}: '
        f'annotation 5 ({what}_id {value!r})'
    )
    assert [info['instances'] for info in load(tmp_path, content)] == [[], []]


def test_text_on_both_sides_is_fine(tmp_path):
    images = [image | {'id': f'n{image["id"]}'} for image in IMAGES]
    categories = [category | {'id': category['name']} for category in CATEGORIES]
    box = BOX | {'image_id': 'n1', 'category_id': 'dog'}
    content = document(box, images=images, categories=categories)
    assert judge(content).errors() == {}
    assert [len(info['instances']) for info in load(tmp_path, content)] == [1, 0]


DROPPED = [
    ({'bbox': [4, 4, 0, 20]}, 'boxes without area, which mmdet drops'),
    ({'bbox': [4, 4, 20, -3]}, 'boxes without area, which mmdet drops'),
    ({'bbox': [64, 4, 9, 9]}, 'boxes outside of their image, which mmdet drops'),
    ({'bbox': [4, -9, 9, 9]}, 'boxes outside of their image, which mmdet drops'),
    ({'bbox': [4, 4, 0.5, 9]}, 'boxes less than one pixel wide or high, which mmdet drops'),
    ({'bbox': [4, 4, 9, 0.99]}, 'boxes less than one pixel wide or high, which mmdet drops'),
    ({'area': 0}, 'boxes whose area is given as 0 or less, which mmdet drops'),
    ({'area': -1}, 'boxes whose area is given as 0 or less, which mmdet drops'),
    ({'category_id': 4}, 'annotations of an unknown category, which mmdet drops'),
    ({'image_id': 9}, 'annotations of an unknown image, which mmdet drops'),
]


@pytest.mark.parametrize(('change', 'message'), DROPPED)
def test_what_mmdet_drops_is_told_with_the_reason(tmp_path, change, message):
    content = document(BOX | {'id': 4}, BOX | change)
    report = judge(content)
    assert report.errors() == {}
    ((kind, (count, shown)),) = report.warnings().items()
    assert (kind, count) == (message, 1)
    assert shown[0][1].startswith('annotation 5')
    assert sum(len(info['instances']) for info in load(tmp_path, content)) == 1


def test_what_mmdet_leaves_out_by_design_is_not_told(tmp_path):
    content = document(BOX, BOX | {'id': 6, 'ignore': True, 'bbox': None})
    assert judge(content).errors() == {}
    assert judge(content).warnings() == {}
    assert sum(len(info['instances']) for info in load(tmp_path, content)) == 1


def test_images_without_a_positive_size(tmp_path):
    content = document(BOX, images=[IMAGES[0] | {'width': 0}, IMAGES[1]])
    report = judge(content)
    assert report.errors() == {}
    line = "1 images without a positive size, whose boxes mmdet drops: '1.jpg' (0 x 48)"
    assert line in tally_lines(report.warnings())
    assert sum(len(info['instances']) for info in load(tmp_path, content)) == 0


@pytest.mark.parametrize('number', [float('nan'), float('inf'), -float('inf')])
def test_boxes_that_are_not_finite(number):
    content = document(BOX | {'bbox': [4, 4, number, 20]})
    (line,) = tally_lines(judge(content).errors())
    assert line == '1 annotations with NaN or infinite boxes: annotation 5'


def test_five_offenders_are_shown_and_all_are_counted():
    content = document(*(without(BOX, 'area') | {'id': number} for number in range(10, 18)))
    (line,) = tally_lines(judge(content).errors())
    shown = ', '.join(f'annotation {number} (missing)' for number in range(10, 15))
    assert line == f'8 annotations whose area is no number: {shown}, … and 3 more'


MASK_FAULTS = [
    (without(BOX, 'segmentation'), 'errors', 'annotations without segmentation'),
    (BOX | {'segmentation': []}, 'errors', 'annotations without segmentation'),
    (BOX | {'segmentation': [4, 4, 9, 4, 9, 9]}, 'errors', 'is no list of polygons'),
    (BOX | {'segmentation': [[4, 4, 9, 9]]}, 'warnings', 'without a polygon of at least 3'),
    (BOX | {'segmentation': {'counts': [3, 4]}}, 'warnings', 'has no counts or size'),
]


@pytest.mark.parametrize(('annotation', 'how', 'message'), MASK_FAULTS)
def test_masks(tmp_path, annotation, how, message):
    from mmdet.datasets.transforms import LoadAnnotations

    content = document(annotation)
    report = judge(content)
    assert report.errors() == {}
    assert report.warnings() == {}
    (line,) = tally_lines(getattr(report, how)(masks=True))
    assert message in line
    assert 'annotation 5' in line
    step = LoadAnnotations(with_bbox=True, with_mask=True)
    info = load(tmp_path, content)[0] | {'ori_shape': (48, 64), 'img_shape': (48, 64)}
    if how == 'errors':
        with pytest.raises((KeyError, TypeError)):
            step.transform(info)
    else:
        assert step.transform(info)['gt_ignore_flags'].tolist() == [True]


@pytest.mark.parametrize('mask', [None, [], [[4, 4]], [3, 4]])
def test_masks_that_pycocotools_stops_at(mask):
    from pycocotools.coco import COCO

    annotation = BOX | {'segmentation': mask}
    report = judge(document(annotation))
    assert len(report.errors(metric_masks=True)) == 1
    truth = COCO()
    truth.dataset = document(annotation)
    truth.createIndex()
    with pytest.raises(Exception):  # noqa: B017 pycocotools raises these itself
        truth.annToRLE(annotation)


def corners(number: int, rng: np.random.Generator, *, wrong: bool) -> list[dict]:
    found = []
    for index in range(number):
        x, y = (int(rng.integers(0, side - 12)) for side in (64, 48))
        width, height = int(rng.integers(6, 64 - x)), int(rng.integers(6, 48 - y))
        box = [x, y, x + width, y + height] if wrong else [x, y, width, height]
        found.append(BOX | {'id': index + 1, 'bbox': box, 'area': width * height})
    return found


@pytest.mark.parametrize('wrong', [True, False])
def test_corners_in_place_of_sides(wrong):
    boxes = corners(200, np.random.default_rng(0), wrong=wrong)
    found = tally_lines(judge(document(*boxes)).warnings())
    if not wrong:
        assert found == []
        return
    far = sum(x + w > 64 + 1 or y + h > 48 + 1 for x, y, w, h in (box['bbox'] for box in boxes))
    start = f'{far} of 200 boxes reach beyond their image, and would fit into it as corners'
    assert found[0].startswith(start)


def test_images_of_half_the_size_are_not_taken_for_corners():
    boxes = corners(200, np.random.default_rng(0), wrong=False)
    halves = [image | {'width': 32, 'height': 24} for image in IMAGES]
    report = judge(document(*boxes, images=halves))
    assert not any('corners' in line for line in report.warnings())


def test_file_on_disk(tmp_path):
    path = coco_file(tmp_path)
    report = read_report(path)
    assert tally_lines(report.errors()) == [
        '1 annotations whose area is no number: annotation 1 (missing)'
    ]
