"""What first and last bytes show of a file agrees with what the loading step makes of it."""

import io
import warnings

import numpy as np
import pytest
import tifffile
from mmcv.transforms import LoadImageFromFile
from PIL import Image

from mmwave.engine.data_checks.image_files import (
    Size,
    decode,
    header_size,
    is_reading_error,
    read_ends,
    why,
)

NOISE = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
ORIENTATION = 0x0112


def encoded(kind: str, orientation: int | None = None) -> bytes:
    out, settings = io.BytesIO(), {}
    if orientation is not None:
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        settings['exif'] = exif
    Image.fromarray(NOISE).save(out, kind, **settings)
    return out.getvalue()


def error_or_none(step, path) -> Exception | None:
    try:
        decode(str(path), step)
    except Exception as error:
        return error
    return None


def error_of(step, path) -> Exception:
    with pytest.raises(Exception) as caught:
        decode(str(path), step)
    return caught.value


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'GIF', 'WebP', 'BMP'])
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_a_file_without_a_doubt_is_read_and_what_is_refused_is_in_doubt(tmp_path, kind, backend):
    step, path, content = LoadImageFromFile(imdecode_backend=backend), tmp_path / 'x', encoded(kind)
    refused = 0
    for length in [*range(0, len(content), len(content) // 20), len(content) - 2, len(content)]:
        path.write_bytes(content[:length])
        ends = read_ends(str(path))
        assert (ends.kind, ends.length) == (kind if length else '', length)
        if length == len(content):
            assert ends.doubt is None
        if ends.doubt is None:
            assert decode(str(path), step) == Size(64, 48)
        elif (error := error_or_none(step, path)) is not None:
            assert is_reading_error(error, str(path))
            assert why(str(path), error) == ends.doubt
            refused += 1
    assert refused >= 18
    assert ends == (kind, None, len(content))


def test_what_is_no_image(tmp_path):
    step, path = LoadImageFromFile(), tmp_path / 'x.jpg'
    for content, doubt in (
        (b'', 'empty'),
        (b'\xef\xbb\xbf\n<!DOCTYPE html><html>', 'a web page or other text'),
        (b'{"message": "Not Found"}', 'a web page or other text'),
        (b'\0' * 5000, 'of no known image format'),
    ):
        path.write_bytes(content)
        assert read_ends(str(path)).doubt == doubt
        error = error_of(step, path)
        assert is_reading_error(error, str(path))
        assert why(str(path), error) == doubt
    error = error_of(step, tmp_path / 'nothing.jpg')
    assert is_reading_error(error, str(tmp_path / 'nothing.jpg'))
    assert why(str(tmp_path / 'nothing.jpg'), error) == 'No such file or directory'


def test_bytes_after_the_end_are_in_doubt_and_are_read(tmp_path):
    path = tmp_path / 'x.jpg'
    path.write_bytes(encoded('JPEG') + b'\0' * 100)
    assert read_ends(str(path)).doubt == 'a JPEG without its end'
    assert decode(str(path), LoadImageFromFile()) == Size(64, 48)


def test_tiffs_of_many_bands_are_what_the_backend_makes_of_them(tmp_path):
    path = tmp_path / 'x.tif'
    for bands, reads in ((4, {'cv2': True, 'tifffile': True}), (5, {'cv2': False, 'tifffile': 1})):
        values = np.zeros((48, 64, bands), np.uint8)
        tifffile.imwrite(path, values, photometric='minisblack', planarconfig='contig')
        assert read_ends(str(path)).kind == 'TIFF'
        for backend, read in reads.items():
            step = LoadImageFromFile(imdecode_backend=backend)
            if read:
                assert decode(str(path), step) == Size(64, 48)
            else:
                error = error_of(step, path)
                assert is_reading_error(error, str(path))
                assert why(str(path), error).startswith('a TIFF that is damaged, or of bands')
    path.write_bytes(path.read_bytes()[:500])
    error = error_of(LoadImageFromFile(imdecode_backend='tifffile'), path)
    assert is_reading_error(error, str(path))


COLORS = (
    *('color', 'grayscale', 'unchanged'),
    *('color_ignore_orientation', 'grayscale_ignore_orientation'),
)


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('color', COLORS)
def test_sizes_are_those_that_are_loaded(tmp_path, backend, color):
    step, path = LoadImageFromFile(color_type=color, imdecode_backend=backend), str(tmp_path / 'x')
    turned = set()
    for kind in ('JPEG', 'PNG'):
        for orientation in (None, *range(1, 9)):
            (tmp_path / 'x').write_bytes(encoded(kind, orientation))
            size = header_size(path, kind, step)
            if kind == 'PNG' and orientation is not None:
                assert size is None
                continue
            assert size[:2] == decode(path, step)[:2]
            if size.turned:
                turned.add(orientation)
    assert turned == ({5, 6, 7, 8} if color in ('color', 'grayscale') else set())


def test_sizes_that_decoding_alone_tells(tmp_path):
    path = tmp_path / 'x'
    for kind in ('GIF', 'TIFF', 'WebP'):
        path.write_bytes(encoded(kind))
        assert header_size(str(path), kind, LoadImageFromFile()) is None
    path.write_bytes(encoded('JPEG'))
    assert header_size(str(path), 'JPEG', LoadImageFromFile(imdecode_backend=None)) is None
    step = LoadImageFromFile(imdecode_backend='turbojpeg')
    path.write_bytes(encoded('JPEG', 6))
    assert header_size(str(path), 'JPEG', step) == Size(64, 48)
    path.write_bytes(encoded('JPEG')[:100])
    assert header_size(str(path), 'JPEG', LoadImageFromFile()) is None


def test_no_warning_of_large_images(tmp_path, monkeypatch):
    """Pillow's limit is its own."""
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 1000)
    path = tmp_path / 'x'
    for kind in ('JPEG', 'PNG'):
        path.write_bytes(encoded(kind))
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            assert header_size(str(path), kind, LoadImageFromFile()) == Size(64, 48)


@pytest.mark.parametrize(
    'settings', [{'imdecode_backend': 'none such'}, {'color_type': 'none such'}]
)
def test_mistakes_of_a_config_are_no_broken_images(tmp_path, settings):
    path = tmp_path / 'x'
    path.write_bytes(encoded('JPEG'))
    for backend in ('cv2', 'pillow'):
        step = LoadImageFromFile(**({'imdecode_backend': backend} | settings))
        assert not is_reading_error(error_of(step, path), str(path))


def test_what_mmcv_asserts_of_settings_is_no_broken_image(tmp_path, monkeypatch):
    path = tmp_path / 'x'
    path.write_bytes(encoded('JPEG'))

    def refuse(*args, **settings):
        raise AssertionError('settings')

    monkeypatch.setattr('mmcv.imfrombytes', refuse)
    assert not is_reading_error(error_of(LoadImageFromFile(), path), str(path))


def test_errors_of_others_are_no_broken_images(tmp_path):
    class Theirs(LoadImageFromFile):
        def transform(self, results):
            super().transform({'img_path': str(tmp_path / 'another')})

    path = str(tmp_path / 'x')
    assert not is_reading_error(error_of(Theirs(), path), path)
    assert not is_reading_error(OSError('not raised'), path)
    assert is_reading_error(error_of(Theirs(), path), str(tmp_path / 'another'))


def test_what_is_ignored_is_no_error(tmp_path):
    assert decode(str(tmp_path / 'nothing'), LoadImageFromFile(ignore_empty=True)) is None
