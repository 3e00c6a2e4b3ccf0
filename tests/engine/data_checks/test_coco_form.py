"""The report on a COCO file says what mmdet does with it: each case is run by mmdet as well."""

import os
import subprocess
import sys

import pytest

from mmwave.engine.data_checks import coco_form
from mmwave.engine.data_checks.coco_form import judge, report
from mmwave.engine.data_checks.coco_use import Use

from .coco_files import ap_of_truth, coco_metric, data_set, document, write

DATA = os.environ.get('MMWAVE_DATA')
TRAINING, EVALUATED = Use(), Use(metrics=frozenset(['bbox']))
IMAGES, BOXES = document()['images'], document()['annotations']

CANNOT_BE_BUILT = {
    'annotations are a dict': (document(annotations={'1': BOXES[0]}), "'annotations' is dict"),
    'annotations are null': (document(annotations=None), "'annotations' is NoneType"),
    'images are a dict': (document(images={'1': IMAGES[0]}), "'images' is dict"),
    'an entry is a number': (document(annotations=[*BOXES, 5]), 'no objects: entry 4'),
    'image without id': (document(images=[{'file_name': 'a'}]), "1 images without 'id': entry 0"),
    **{
        f'image without {key}': (
            document(images=[{k: v for k, v in image.items() if k != key} for image in IMAGES]),
            f"2 images without a usable '{key}': id 1, id 2",
        )
        for key in ('file_name', 'width', 'height')
    },
    'width is a text': (
        document(images=[image | {'width': '64'} for image in IMAGES]),
        "2 images without a usable 'width'",
    ),
    **{
        f'annotation without {key}': (document(without=key), f"1 annotations without '{key}': id 1")
        for key in ('image_id', 'category_id', 'bbox', 'area')
    },
    'annotation without id': (document(without='id'), "1 annotations without 'id': entry 0"),
    **{
        f'bbox is {box}': (document({'bbox': box}), "another than 4 numbers in 'bbox': id 1")
        for box in (None, [], [1, 2, 3], [1, 2, 3, 4, 5], ['1', '2', '3', '4'], {'x': 1}, 'abcd')
    },
    'area is null': (document({'area': None}), "1 annotations with no number as 'area': id 1"),
    'area is a text': (document({'area': '5'}), "1 annotations with no number as 'area': id 1"),
    'ids twice': (document({'id': 2}), '1 ids of two or more annotations: id 2'),
}


@pytest.mark.parametrize('case', CANNOT_BE_BUILT)
def test_what_mmdet_cannot_build(tmp_path, case):
    content, expected = CANNOT_BE_BUILT[case]
    with pytest.raises((AssertionError, KeyError, TypeError, ValueError)):
        data_set(write(tmp_path, content), filter_cfg={'min_size': 32})
    (line,) = judge(content).errors(TRAINING)
    assert expected in line


TRAINED_WITH_A_REMARK = {
    'image ids twice': (
        document(images=[*IMAGES, IMAGES[1] | {'file_name': 'b.jpg'}]),
        '1 ids of two or more images, of which the last counts: id 2',
    ),
    'category ids twice': (
        document(categories=[{'id': 3, 'name': 'cat'}, {'id': 3, 'name': 'dog'}]),
        '1 ids of two or more categories: 3',
    ),
    'unknown image': (document({'image_id': 99}), '1 of images that the file does not have: id 1'),
    'one image_id is a text': (
        document({'image_id': '1'}),
        "1 annotations with image_id of type str where images.id is int: '1'",
    ),
    'one category_id is a text': (
        document({'category_id': '3'}),
        "1 annotations with category_id of type str where categories.id is int: '3'",
    ),
    'id of a box on an unknown image': (
        document({'id': 2, 'image_id': 99}),
        '1 ids of two or more annotations: id 2',
    ),
    'image without size': (
        document(images=[IMAGES[0] | {'width': 0, 'height': 0}, IMAGES[1]]),
        '1 images without a positive size: id 1 (0 x 0)',
    ),
    'iscrowd is a text': (document({'iscrowd': '0'}), "1 annotations with a text as 'iscrowd'"),
}


@pytest.mark.parametrize('case', TRAINED_WITH_A_REMARK)
def test_what_mmdet_trains_with(tmp_path, case):
    content, expected = TRAINED_WITH_A_REMARK[case]
    data_set(write(tmp_path, content))
    found = judge(content)
    assert found.errors(TRAINING) == []
    assert expected in '; '.join(found.warnings(TRAINING))


def test_good(tmp_path):
    everything = Use(masks=True, metrics=frozenset(['bbox', 'segm']))
    for content in (document(), document(annotations=[]), document({'id': 'text', 'iscrowd': 1})):
        found = judge(content)
        assert found.errors(everything) == found.warnings(everything) == []
    assert found.filled() == ['1 annotation ids that pycocotools takes for no match: id text']


@pytest.mark.parametrize('key', ['image_id', 'category_id'])
def test_ids_of_another_type_throughout(key):
    content = document()
    for annotation in content['annotations']:
        annotation[key] = str(annotation[key])
    (line,) = judge(content).errors(TRAINING)
    side = {'image_id': 'images.id', 'category_id': 'categories.id'}[key]
    assert line.startswith(f'4 annotations with {key} of type str where {side} is int: ')


@pytest.mark.parametrize('part', ['images', 'categories'])
def test_ids_that_the_metric_cannot_sort(tmp_path, part):
    content = document()
    content[part][1]['id'] = 'b'
    if part == 'images':
        for annotation in content['annotations'][1::2]:
            annotation['image_id'] = 'b'
    path = write(tmp_path, content)
    data_set(path)
    assert judge(content).errors(TRAINING) == []
    assert judge(content).errors(EVALUATED) == [f'1 mixture of text and numbers: {part}.id']
    with pytest.raises(TypeError):
        ap_of_truth(coco_metric(path), content)


def test_text_ids_on_both_sides_are_good(tmp_path):
    content = document()
    for image in content['images']:
        image['id'] = str(image['id'])
    for annotation in content['annotations']:
        annotation['image_id'] = str(annotation['image_id'])
    assert judge(content).errors(EVALUATED) == judge(content).warnings(EVALUATED) == []
    assert ap_of_truth(coco_metric(write(tmp_path, content)), content) == 1


@pytest.mark.parametrize('content', [[], 5, {}, {'categories': []}, {'categories': {'3': {}}}])
def test_other_forms(content):
    assert judge(content) is None
    assert judge({'categories': [{'name': 'a'}]}) is judge({'categories': [{'id': 1}]}) is None


def test_images_that_mmdet_keeps(tmp_path):
    content = document(images=[*IMAGES, IMAGES[0] | {'id': 5, 'height': 20}, IMAGES[0]])
    content['annotations'][0]['category_id'] = 7
    content['annotations'].append(content['annotations'][0] | {'id': 9, 'image_id': 5})
    path = write(tmp_path, content)
    for classes in (('cat',), ('dog',), ('cat', 'dog')):
        for size in (0, 20, 21):
            for empty in (True, False):
                chosen = {'min_size': size, 'filter_empty_gt': empty}
                built = data_set(
                    path, metainfo={'classes': classes}, filter_cfg=chosen, serialize_data=False
                )
                assert report(path, classes).images_kept(**chosen) == len(built)


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    path = write(tmp_path, document())
    first = report(path, ('cat',))
    monkeypatch.setattr(coco_form, 'read_json', lambda *_, **__: document({'bbox': None}))
    assert report(str(path), ['cat']) is first
    path.write_text(path.read_text() + ' ')
    assert report(path, ('cat',)).errors(TRAINING)


def test_large_files_are_read_in_the_first_process_alone(tmp_path, monkeypatch):
    path = write(tmp_path, document())
    for rank in ('0', '1'):
        monkeypatch.setenv('RANK', rank)
        monkeypatch.setattr(coco_form, 'SHORTEN_BYTES', 2**26)
        assert coco_form.is_read_here(path)
        monkeypatch.setattr(coco_form, 'SHORTEN_BYTES', 1)
        assert coco_form.is_read_here(path) == (rank == '0')


def test_neither_torch_nor_mmengine_is_imported():
    code = (
        'import sys, mmwave.engine.data_checks.coco_form\n'
        'print({"torch", "mmengine"} & {*sys.modules})'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=60)
    assert done.stdout == 'set()\n'


@pytest.mark.skipif(not DATA, reason='needs MMWAVE_DATA')
@pytest.mark.parametrize('split', ['train', 'val'])
def test_real_coco_is_good(split):
    found = report(f'{DATA}/coco_mini/annotations/instances_{split}2017.json', None)
    everything = Use(masks=True, metrics=frozenset(['bbox', 'segm']))
    assert found.errors(everything) == found.warnings(everything) == found.filled() == []
