"""Bad labels, and other faults of data for classification, are named before the first step."""

import numpy as np

from mmwave.engine.data_checks.samples import count_labels, label_fault

from .building import check, classification_data, error_of, head, model


def test_good(tmp_path):
    dataset = classification_data(tmp_path, 'x.jpg 0\ny.jpg 1\n')
    (info,) = check(dataset, net=model(head=head(2)))
    assert info.endswith('2 samples, 2 image files looked up')


def test_label_without_a_class(tmp_path):
    dataset = classification_data(tmp_path, 'x.jpg 0\ny.jpg 2\nz.jpg -1\n')
    message = error_of(dataset)
    assert f'2 labels without a class: {tmp_path}/y.jpg (label 2, expected 0..1)' in message
    assert f'{tmp_path}/z.jpg (label -1, expected 0..1)' in message


def test_several_labels():
    for several in ([0, 1], np.array([1, 0]), [], np.int64(1)):
        assert label_fault({'gt_label': several}, 2) is None
    fault = label_fault({'gt_label': [0, 2], 'img_path': 'x.jpg'}, 2)
    assert fault == 'x.jpg (label [0, 2], expected 0..1)'


def test_missing_image(tmp_path):
    dataset = classification_data(tmp_path, 'x.jpg 0\ny.jpg 1\n')
    (tmp_path / 'y.jpg').unlink()
    assert f'{tmp_path}/y.jpg' in error_of(dataset)


def test_samples_of_each_class():
    for several in ([0, 2, 2], [np.int64(0), 2, np.array(2)], [[0, 2], np.array([2])]):
        np.testing.assert_array_equal(count_labels(several, 4), [1, 0, 2, 0])
    np.testing.assert_array_equal(count_labels([-1, 1, 2], 2), [0, 1])
