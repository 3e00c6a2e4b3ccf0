"""Heads that do not fit the data are named; they say what labels are accepted."""

from torch import nn

from .building import (
    check,
    classification_data,
    detection_data,
    error_of,
    head,
    labels,
    model,
    segmentation_data,
)


def test_heads_of_detectors_with_another_number_of_classes(tmp_path):
    dataset = detection_data(tmp_path, [{}])
    roi_head = model(bbox_head=nn.ModuleList([head(2), head(80)]), mask_head=head(2))
    message = error_of(dataset, net=model(roi_head=roi_head))
    assert 'model.roi_head.bbox_head.1.num_classes is 80, the data has 2 classes' in message
    assert 'mask_head' not in message


def test_heads_of_segmentors_with_another_number_of_classes(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels()})
    net = model(decode_head=head(150), auxiliary_head=nn.ModuleList([head(3), head(19)]))
    # Training on several GPUs wraps the model.
    message = error_of(dataset, net=model(module=net))
    assert '2 heads of another number of classes' in message
    assert 'model.decode_head.num_classes is 150, the data has 3 classes' in message
    assert 'model.auxiliary_head.1.num_classes is 19' in message


def test_head_says_what_is_ignored(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels(255)})
    net = model(decode_head=head(3, ignore_index=254))
    assert '(labels 255; expected 0..2, 254)' in error_of(dataset, net=net)


def test_head_says_the_number_when_the_data_does_not(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels(9)}, metainfo=None)
    check(dataset)
    check(dataset, net=model(decode_head=head(10)))
    assert 'expected 0..8, 255' in error_of(dataset, net=model(decode_head=head(9)))


def test_the_head_of_a_classifier(tmp_path):
    dataset = classification_data(tmp_path, 'x.jpg 0\n')
    message = error_of(dataset, net=model(head=head(1000)))
    assert 'model.head.num_classes is 1000, the data has 2 classes' in message
    unnamed = classification_data(tmp_path, 'x.jpg 5\n', metainfo=None)
    check(unnamed, net=model(head=head(6)))
    assert 'expected 0..4' in error_of(unnamed, net=model(head=head(5)))


def test_one_output_learns_two_labels(tmp_path):
    """The class and what is not the class, by a threshold."""
    dataset = segmentation_data(tmp_path, {'a': labels(0, 1)}, metainfo={'classes': ('road',)})
    check(dataset, net=model(decode_head=head(1, out_channels=1)))
    assert 'expected 0, 255' in error_of(dataset, net=model(decode_head=head(1)))
    two = segmentation_data(tmp_path, {'a': labels(2)}, metainfo={'classes': ('a', 'b')})
    net = model(decode_head=head(2, out_channels=1))
    assert 'labels 2; expected 0..1, 255' in error_of(two, net=net)
