"""Bad label maps, and other faults of data for segmentation, are named before the first step."""

import numpy as np
import pytest
from PIL import Image

from mmwave.engine.data_checks.label_maps import LabelRule, label_rule, read_label_map
from mmwave.engine.data_checks.label_reading import map_reading

from .building import (
    check,
    error_of,
    head,
    labels,
    model,
    segmentation_data,
    segmentation_steps,
    write_image,
    write_labels,
)


def test_good(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels(0, 1, 2, 255), 'b': labels()})
    net = model(decode_head=head(3, ignore_index=255), auxiliary_head=head(3))
    shares, info = check(dataset, net=net)
    assert 'pixels of 2 label maps' in shares
    assert f'BaseSegDataset ({tmp_path}/img)' in info
    assert info.endswith('2 samples, 2 image files looked up (2 opened), 2 label maps read')


def test_labels_out_of_range(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels(2), 'b': labels(3, 30, 255)})
    message = error_of(dataset)
    assert f'{tmp_path}/ann/b.png (labels 3, 30; expected 0..2, 255)' in message
    assert '1 label maps do not fit' in message


def test_reduce_zero_label(tmp_path):
    good = segmentation_data(tmp_path / '1', {'a': labels(0, 1, 3, 255)}, reduce_zero_label=True)
    check(good)
    bad = segmentation_data(tmp_path / '2', {'a': labels(4, 254)}, reduce_zero_label=True)
    # 254 becomes 253, out of range; 255 stays ignored.
    assert '(labels 4, 254; expected 0..3, 255)' in error_of(bad)


def test_classes_that_are_left_out(tmp_path):
    """A subset of a data set's own classes: the other ones become ignored."""
    from mmseg.datasets import CityscapesDataset

    write_image(tmp_path / 'img' / 'a_leftImg8bit.png')
    path = write_labels(tmp_path / 'ann' / 'a_gtFine_labelTrainIds.png', labels(0, 5, 18, 255))
    prefix = {'img_path': 'img', 'seg_map_path': 'ann'}
    metainfo = {'classes': ('road', 'car')}
    dataset = CityscapesDataset(
        data_root=str(tmp_path),
        data_prefix=prefix,
        metainfo=metainfo,
        pipeline=segmentation_steps(),
    )
    check(dataset)
    write_labels(path, labels(19))
    assert '(labels 19; expected 0..18, 255)' in error_of(dataset)


@pytest.mark.parametrize('reduce_zero_label', [False, True])
@pytest.mark.parametrize('classes', [('sky', 'wall'), None])
def test_rule_agrees_with_what_mmseg_loads(tmp_path, reduce_zero_label, classes):
    from mmseg.datasets import ADE20KDataset
    from mmseg.datasets.transforms import LoadAnnotations

    every_value = np.arange(256, dtype=np.uint8).reshape(16, 16)
    write_image(tmp_path / 'img' / 'a.jpg', (16, 16))
    write_labels(tmp_path / 'ann' / 'a.png', every_value)
    dataset = ADE20KDataset(
        data_root=str(tmp_path),
        data_prefix={'img_path': 'img', 'seg_map_path': 'ann'},
        reduce_zero_label=reduce_zero_label,
        metainfo={'classes': classes} if classes else None,
    )
    info = dataset.get_data_info(0)
    loaded = LoadAnnotations()(dataset.get_data_info(0))['gt_seg_map'].ravel()
    for ignore_index in (255, 254):
        rule = LabelRule(
            num_classes=len(dataset.metainfo['classes']),
            ignore_index=ignore_index,
            reduce_zero_label=info['reduce_zero_label'],
            label_map=info['label_map'],
        )
        expected = (loaded < rule.num_classes) | (loaded == ignore_index)
        np.testing.assert_array_equal(rule.allowed, expected)
        assert 0 < expected.sum() < 256


def test_label_map_of_another_size(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels(shape=(32, 48)), 'b': labels()})
    message = error_of(dataset)
    assert f'{tmp_path}/ann/a.png (label map is 32 x 48, image is 48 x 64)' in message


def test_photo_that_is_turned_by_exif(tmp_path):
    """OpenCV turns the photo while loading it, so the label map has to be turned."""
    from mmcv.transforms import LoadImageFromFile

    dataset = segmentation_data(tmp_path, {'a': labels(shape=(64, 48))})
    assert 'image is 48 x 64' in error_of(dataset)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = write_image(tmp_path / 'img' / 'a.jpg', exif=exif)
    assert LoadImageFromFile()({'img_path': str(path)})['img'].shape == (64, 48, 3)
    check(dataset)


def test_colour_label_map(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': np.zeros((48, 64, 3), dtype=np.uint8)})
    assert 'a.png (label map has 3 channels, expected 1)' in error_of(dataset)


def test_palette_label_map_is_read_as_indices(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels()})
    image = Image.fromarray(labels(0, 1, 2, 255)).convert('P')
    image = Image.frombytes('P', image.size, labels(0, 1, 2, 255).tobytes())
    image.putpalette([200, 30, 40] * 256)
    image.save(tmp_path / 'ann' / 'a.png')
    check(dataset)


def test_labels_wider_than_a_byte(tmp_path):
    """258 would become class 2 when the loader makes bytes of it."""
    wide = labels().astype(np.uint16)
    wide[0, :3] = 258, 1, 2
    dataset = segmentation_data(tmp_path, {'a': wide})
    assert '(labels 258; expected 0..2, 255)' in error_of(dataset)
    wide[0, 0] = 2
    write_labels(tmp_path / 'ann' / 'a.png', wide)
    check(dataset)


@pytest.mark.parametrize(
    ('value', 'dtype', 'suffix'), [(65535, np.uint16, '.png'), (-1, np.int32, '.tif')]
)
def test_wide_value_that_becomes_the_ignored_label(tmp_path, value, dtype, suffix):
    """Of as many ones in bits as 255: what it becomes is what it meant."""
    wide = labels(0, 1, 2).astype(dtype)
    wide[0, 3] = value
    dataset = segmentation_data(tmp_path, {'a': labels()}, seg_map_suffix=suffix)
    write_labels(tmp_path / 'ann' / f'a{suffix}', wide)
    assert dataset[0]['gt_seg_map'][0, 3] == 255
    warning, *_ = check(dataset)
    assert 'values that become 255, which is ignored: ' in warning
    assert warning.endswith(f'{tmp_path}/ann/a{suffix} ({value})')
    # A head may leave out another label than 255.
    net = model(decode_head=head(3, ignore_index=254))
    assert f'(labels {value}; expected 0..2, 254)' in error_of(dataset, net=net)


@pytest.mark.parametrize('value', [1.5, -1, np.nan, 300])
def test_numbers_that_are_no_labels(tmp_path, value):
    wrong = labels(0, 1).astype(np.float32)
    wrong[0, 2] = value
    dataset = segmentation_data(tmp_path, {'a': labels()}, seg_map_suffix='.tif')
    write_labels(tmp_path / 'ann' / 'a.tif', wrong)
    assert f'(labels {float(value)}; expected 0..2, 255)' in error_of(dataset)
    write_labels(tmp_path / 'ann' / 'a.tif', labels(0, 1).astype(np.float32))
    check(dataset)


def test_black_and_white(tmp_path):
    """One bit a pixel, which Pillow reads as booleans."""
    dataset = segmentation_data(tmp_path, {'a': labels()})
    write_labels(tmp_path / 'ann' / 'a.png', labels(1).astype(bool))
    assert dataset[0]['gt_seg_map'].max() == 1
    assert '1 label maps read' in check(dataset)[-1]


def test_pixels_are_counted_as_training_sees_them(tmp_path):
    from mmseg.datasets import ADE20KDataset

    values = np.random.default_rng(0).integers(0, 151, (48, 64), dtype=np.uint8)
    write_image(tmp_path / 'img' / 'a.jpg')
    write_labels(tmp_path / 'ann' / 'a.png', values)
    dataset = ADE20KDataset(
        data_root=str(tmp_path),
        data_prefix={'img_path': 'img', 'seg_map_path': 'ann'},
        metainfo={'classes': ('sky', 'wall')},
        pipeline=segmentation_steps(),
    )
    expected = np.bincount(dataset[0]['gt_seg_map'].ravel(), minlength=256)
    rule = label_rule(dataset, model())
    files = str(tmp_path / 'img' / 'a.jpg'), str(tmp_path / 'ann' / 'a.png')
    for wider in (np.uint8, np.uint16):
        write_labels(tmp_path / 'ann' / 'a.png', values.astype(wider))
        report = read_label_map(*files, map_reading(dataset), rule)
        np.testing.assert_array_equal(report.pixels, expected)
    assert expected[0] > 0
    assert expected[1] > 0


def test_missing_label_map(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels(), 'b': labels()})
    (tmp_path / 'ann' / 'b.png').unlink()
    assert f'1 label maps cannot be found: {tmp_path}/ann/b.png' in error_of(dataset)


def test_unreadable_files(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels(), 'b': labels(), 'c': labels()})
    cut = tmp_path / 'ann' / 'a.png'
    cut.write_bytes(cut.read_bytes()[:-30])
    (tmp_path / 'ann' / 'b.png').write_text('no image')
    # An image that cannot be read is no fault of its label map.
    (tmp_path / 'img' / 'c.jpg').write_text('no image')
    message = error_of(dataset)
    assert f'2 label maps cannot be read: {cut} (' in message
    assert 'c.png' not in message


def test_missing_image(tmp_path):
    dataset = segmentation_data(tmp_path, {'a': labels()})
    (tmp_path / 'img' / 'a.jpg').unlink()
    assert error_of(dataset).endswith(f'1 image files cannot be found: {tmp_path}/img/a.jpg')


def test_emptied_data_set(tmp_path):
    from mmseg.datasets import BaseSegDataset

    (tmp_path / 'img').mkdir()
    dataset = BaseSegDataset(
        data_root=str(tmp_path),
        data_prefix={'img_path': 'img', 'seg_map_path': 'ann'},
        img_suffix='.jpeg',
        serialize_data=False,
    )
    expected = f'0 images found in {tmp_path}/img with suffix .jpeg'
    assert error_of(dataset).endswith(expected)


def test_no_label_maps_to_look_at(tmp_path):
    from mmseg.datasets import BaseSegDataset

    write_image(tmp_path / 'img' / 'a.jpg')
    prefix = {'img_path': 'img'}
    check(BaseSegDataset(data_root=str(tmp_path), data_prefix=prefix), 'test')


def test_limit_is_spread_evenly(tmp_path):
    dataset = segmentation_data(tmp_path, {f'{i}': labels() for i in range(9)})
    write_labels(tmp_path / 'ann' / '4.png', labels(7))
    assert '2 label maps read' in check(dataset, max_files=2)[-1]
    assert '4.png' in error_of(dataset, max_files=3)
