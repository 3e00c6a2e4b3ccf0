"""Pictures of any kind, from files and from memory, through a test pipeline without labels."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DefaultScope
from PIL import Image

from mmwave.apis import UsageError
from mmwave.apis.predicting.reading import Reader, UnreadableError, surprises, without_labels
from mmwave.errors import UserError

NOISE = np.random.default_rng(0).integers(0, 255, (40, 56, 3), dtype=np.uint8)  # RGB
PLAIN = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
ORIENTATION = 0x0112


def reader(*steps):
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return Reader(steps or PLAIN)


def saved(path, mode='RGB', **settings):
    Image.fromarray(NOISE).convert(mode).save(path, **settings)
    return str(path)


def inputs(reading):
    return reading.data['inputs'].numpy()


def test_a_file_an_array_and_an_image_are_the_same(tmp_path):
    path, read = saved(tmp_path / 'a.png'), reader()
    bgr = NOISE[..., ::-1]
    wanted = inputs(read(path))
    assert np.array_equal(wanted, bgr.transpose(2, 0, 1))
    for picture in (tmp_path / 'a.png', bgr, Image.open(path), Image.fromarray(NOISE)):
        found = read(picture)
        assert np.array_equal(inputs(found), wanted)
        assert np.array_equal(found.image, bgr)
    assert read(path).data['data_samples'].img_path == path


@pytest.mark.parametrize('settings', [dict(to_float32=True), dict(color_type='grayscale')])
def test_the_settings_of_the_loading_step_hold_for_arrays(tmp_path, settings):
    read = reader(dict(type='LoadImageFromFile', **settings), PLAIN[1])
    wanted, found = read(saved(tmp_path / 'a.png')), read(NOISE[..., ::-1].copy())
    assert inputs(found).dtype == inputs(wanted).dtype
    # A PNG's decoder rounds greys its own way.
    assert np.abs(inputs(found).astype(int) - inputs(wanted)).max() <= ('color_type' in settings)
    assert found.image.shape == (40, 56, 3)
    assert found.image.dtype == np.uint8


@pytest.mark.parametrize('shape', [(40, 56), (40, 56, 1), (40, 56, 4)])
def test_arrays_of_other_channels(shape):
    array = np.random.default_rng(1).integers(0, 255, shape, dtype=np.uint8)
    found = reader()(array).image
    assert found.shape == (40, 56, 3)
    wanted = array[..., :3] if shape[-1] == 4 else array.reshape(40, 56, 1).repeat(3, 2)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(
    'picture',
    [
        NOISE.astype(np.float32),
        NOISE.astype(np.uint16),
        NOISE[None],
        NOISE[..., :2],
        NOISE[:0],
        3,
        None,
        b'bytes',
    ],
)
def test_what_is_no_picture(picture):
    with pytest.raises(UserError, match=r'is no picture: expected uint8|a picture is a path'):
        reader()(picture)


def test_a_step_that_writes_into_its_picture_changes_no_array():
    given = NOISE.copy()

    class Blacken:
        def __call__(self, results):
            results['img'][:] = 0
            return results

    read = reader()
    read._preparing.insert(0, Blacken())
    found = read(given)
    assert not inputs(found).any()
    assert np.array_equal(given, NOISE)
    assert np.array_equal(found.image, NOISE)


@pytest.mark.parametrize(
    ('name', 'mode', 'settings', 'said'),
    [
        ('rgb.jpg', 'RGB', {}, None),
        ('grey.png', 'L', {}, None),
        ('two.png', '1', {}, None),
        ('palette.png', 'P', {}, None),
        ('clear.png', 'RGBA', {}, None),  # all of it opaque
        ('indexed.png', 'P', dict(transparency=3), 'transparency'),
        ('print.jpg', 'CMYK', {}, 'CMYK'),
        ('deep.png', 'I;16', {}, 'more than 8 bits'),
        ('page.webp', 'RGB', {}, None),
        ('still.gif', 'P', {}, None),
        ('moving.gif', 'P', dict(save_all=True, append_images=[Image.new('P', (56, 40))]), 'first'),
        ('a.tif', 'RGB', {}, None),
        ('deep.tif', 'I;16', {}, 'more than 8 bits'),
        ('a.bmp', 'RGB', {}, None),
    ],
)
def test_kinds_of_files(tmp_path, name, mode, settings, said):
    image = Image.fromarray(NOISE)
    if mode == 'I;16':
        image = Image.fromarray(NOISE[..., 0].astype(np.uint16) * 256)
    path = tmp_path / name
    (image if mode == 'I;16' else image.convert(mode)).save(path, **settings)
    found = reader()(path)
    assert found.image.shape == NOISE.shape
    assert inputs(found).shape == (3, 40, 56)
    lines = list(surprises(str(path)))
    assert bool(lines) == (said is not None)
    assert said is None or said in lines[0]


def test_more_than_8_bits_in_colour(tmp_path):
    cv2.imwrite(str(tmp_path / 'a.png'), NOISE.astype(np.uint16) * 257)
    assert list(surprises(str(tmp_path / 'a.png'))) == [
        'more than 8 bits a channel are reduced to 8'
    ]
    assert np.array_equal(reader()(tmp_path / 'a.png').image, NOISE)


def test_what_transparency_hides_is_said(tmp_path):
    image = Image.fromarray(NOISE).convert('RGBA')
    image.putpixel((3, 4), (1, 2, 3, 254))
    image.save(tmp_path / 'a.png')
    assert 'transparency is ignored' in next(surprises(str(tmp_path / 'a.png')))


def test_a_picture_is_turned_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = saved(tmp_path / 'a.jpg', exif=exif)
    file, memory = reader()(path), reader()(Image.open(path))
    assert file.image.shape == memory.image.shape == (56, 40, 3)
    assert np.abs(file.image.astype(int) - memory.image).max() <= 2  # two JPEG decoders


@pytest.mark.parametrize(
    ('content', 'reason'),
    [
        (b'', 'empty'),
        (b'<html>', 'a web page or other text'),
        (b'noise' * 99, 'of no known image format'),
        (b'\x89PNG\r\n\x1a\n1234', 'a PNG without its end'),
    ],
)
def test_broken_files(tmp_path, content, reason):
    path = tmp_path / 'a.png'
    path.write_bytes(content)
    with pytest.raises(
        UnreadableError, match=re.escape(f'a.png cannot be read: {reason}')
    ) as error:
        reader()(path)
    assert error.value.damaged
    assert error.value.reason == reason


@pytest.mark.parametrize('kind', ['jpg', 'png', 'webp', 'bmp'])
def test_a_file_that_is_cut(tmp_path, kind):
    whole = Path(saved(tmp_path / f'a.{kind}')).read_bytes()
    path = tmp_path / f'cut.{kind}'
    path.write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UnreadableError, match='without its end'):
        reader()(path)
    assert not list(surprises(str(path)))


def test_a_step_that_cannot_prepare_a_picture(tmp_path):
    read = reader(PLAIN[0], dict(type='Resize', scale=(8, 8), keep_ratio=True), PLAIN[1])
    line = np.zeros((1, 4000, 3), np.uint8)
    with pytest.raises(UnreadableError, match=r'the picture \(4000 x 1\).*Resize raised') as error:
        read(line)
    assert not error.value.damaged


def test_steps_that_load_labels_are_left_out():
    views = [[dict(type='RandomFlip')], [dict(type='LoadAnnotations')], [dict(type='PackInputs')]]
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmseg.LoadAnnotations', reduce_zero_label=True),
        dict(type='LoadDepthAnnotation'),
        dict(type='TestTimeAug', transforms=views),
    ]
    load, merged = without_labels(pipeline)
    assert load == dict(type='LoadImageFromFile')
    assert merged['transforms'] == [[dict(type='RandomFlip')], [dict(type='PackInputs')]]
    assert len(views) == 3


def test_a_pipeline_that_reads_no_image():
    with pytest.raises(UsageError, match=r"reads no image: .*\['PackInputs'\]"):
        reader(PLAIN[1])
