"""Bad boxes, and other faults of data for detection, are named before the first step."""

import pytest

from mmwave.engine.data_checks.boxes import box_fault

from .building import check, detection_data, error_of, head, model


def test_good(tmp_path):
    net = model(bbox_head=head(2))
    (info,) = check(detection_data(tmp_path, [{}, {}]), net=net)
    assert info.startswith(f'INFO train data, CocoDataset ({tmp_path}/a.json): checked in ')
    assert info.endswith('2 samples, 2 image files looked up, 2 boxes')


def test_wrong_class_names_leave_no_box(tmp_path):
    dataset = detection_data(tmp_path, [{}], metainfo={'classes': ('horse',)})
    for mode in ('train', 'val', 'test'):
        message = error_of(dataset, mode)
        assert message.startswith(f'{mode} data, CocoDataset ({tmp_path}/a.json)')
        assert '0 boxes in 2 images' in message
        assert "expected classes: ['horse']" in message
        assert "categories of the file: ['cat', 'dog']" in message


def test_secret_labels_can_be_tested_on_but_not_validated(tmp_path):
    dataset = detection_data(tmp_path, [])
    check(dataset, 'test')
    assert '0 boxes' in error_of(dataset, 'val')


def test_missing_image(tmp_path):
    dataset = detection_data(tmp_path, [{}], num_images=9)
    (tmp_path / '4.jpg').unlink()
    message = error_of(dataset)
    assert f'1 image files cannot be found: {tmp_path}/4.jpg' in message
    for name in '0123578':
        (tmp_path / f'{name}.jpg').unlink()
    message = error_of(dataset)
    shown = ', '.join(f'{tmp_path}/{name}.jpg' for name in '01234')
    assert f'8 image files cannot be found: {shown}, … and 3 more' in message
    assert error_of(dataset, max_images=2).count('.jpg') == 2  # the first and the last


def test_empty_image_file(tmp_path):
    dataset = detection_data(tmp_path, [{}])
    (tmp_path / '1.jpg').write_bytes(b'')
    assert f'1 image files cannot be read: {tmp_path}/1.jpg (empty)' in error_of(dataset)


@pytest.mark.parametrize('number', [float('nan'), float('inf')])
def test_not_finite_boxes_that_mmdet_drops(tmp_path, number):
    dataset = detection_data(tmp_path, [{}, {'bbox': [4, 4, number, 20]}, {'id': 77}])
    assert '1 annotations with NaN or infinite boxes: id 1' in error_of(dataset)


def test_boxes_that_mmdet_drops_are_counted(tmp_path):
    boxes = [
        {},
        {'bbox': [4, 4, 0, 20]},
        {'bbox': [4, 4, 5, -2]},
        {'bbox': [64, 4, 5, 5]},
        {'bbox': [4, -5, 5, 5]},
        {'bbox': [4, 48, 5, 5]},
        {'category_id': 99},
    ]
    dataset = detection_data(tmp_path, boxes)
    assert len(dataset.get_data_info(0)['instances']) == 1
    warning, _ = check(dataset)
    assert warning.startswith('WARNING')
    assert '2 with w or h below 1: id 1, id 2; ' in warning
    assert '3 outside of their image: id 3, id 4, id 5; ' in warning
    assert '1 of an unknown category: id 6' in warning


def test_boxes_of_the_data_set_itself():
    from mmdet.datasets import BaseDetDataset

    class Given(BaseDetDataset):
        def load_data_list(self):
            boxes = [0, 0, 9, 9], [5, 5, 5, 9], [70, 0, 80, 9], [0, 0, 9, self.last]
            instances = [{'bbox': list(box), 'bbox_label': 0} for box in boxes]
            return [{'img_id': 0, 'height': 48, 'width': 64, 'instances': instances}]

    Given.last = 9
    warning, info = check(Given(metainfo={'classes': ('a',)}))
    assert '1 without area, 1 outside of their image' in warning
    assert '4 boxes' in info
    Given.last = float('nan')
    message = error_of(Given(metainfo={'classes': ('a',)}))
    assert '1 boxes with NaN or infinite numbers: 0 [0.0, 0.0, 9.0, nan]' in message


def test_fault_of_one_box():
    assert box_fault([4, 4, 5, 5], (64, 48)) is box_fault([400, 4, 5, 5], None) is None
    assert box_fault([4, 4, 0, 5], None) == 'degenerate'
    assert box_fault([64, 4, 5, 5], (64, 48)) == 'outside'
    assert box_fault([4, float('nan'), 5, 5], None) == 'non_finite'
