"""Which images of a data set are broken or of another size, and what of that ends a run."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmengine.registry import TRANSFORMS
from PIL import Image

from .building import check, classification_data, error_of, write_image

LOAD = {'type': 'LoadImageFromFile'}
HTML = b'<!DOCTYPE html><html>404</html>'


def images(root: Path, broken: dict[str, bytes], num_good: int = 3, **settings):
    """Return a data set for classification of good images and of files of these contents."""
    settings = {'pipeline': [LOAD], 'metainfo': {'classes': ['a']}} | settings
    names = [f'good{index}.jpg' for index in range(num_good)] + list(broken)
    dataset = classification_data(root, ''.join(f'{name} 0\n' for name in names), **settings)
    for name, content in broken.items():
        (root / name).write_bytes(content)
    return dataset


def detection(root: Path, sizes: list[tuple[int, int]], stated: list[tuple[int, int]], **image):
    """Return a COCO data set of images of some sizes; their boxes fill the stated sizes."""
    from mmdet.datasets import CocoDataset

    settings = {name: image.pop(name) for name in ('pipeline', 'box') if name in image}
    for index, size in enumerate(sizes):
        write_image(root / f'{index}.jpg', size, **image)
    document = {
        'images': [
            {'id': i, 'file_name': f'{i}.jpg', 'width': w, 'height': h}
            for i, (w, h) in enumerate(stated)
        ],
        'annotations': [
            {'id': i + 1, 'image_id': i, 'category_id': 1, 'area': w * h, 'iscrowd': 0}
            | {'bbox': settings.get('box') or [0, 0, w, h]}
            for i, (w, h) in enumerate(stated)
        ],
        'categories': [{'id': 1, 'name': 'cat'}],
    }
    (root / 'a.json').write_text(json.dumps(document))
    return CocoDataset(
        ann_file=str(root / 'a.json'),
        data_prefix={'img': str(root)},
        metainfo={'classes': ('cat',)},
        pipeline=settings.get('pipeline', [LOAD]),
    )


def test_broken_images_within_the_limit_are_named_and_beyond_it_end_the_run(tmp_path):
    whole = write_image(tmp_path / 'whole.jpg').read_bytes()
    broken = {'a.jpg': HTML, 'b.jpg': whole[:-100], 'c.jpg': b''}
    dataset = images(tmp_path, broken)
    warning, info = check(dataset, max_broken_images=3)
    assert warning.startswith('WARNING')
    assert '3 image files cannot be read and will be skipped (max_broken_images=3): ' in warning
    named = ('a.jpg (a web page or other text)', 'b.jpg (a JPEG without its end)', 'c.jpg (empty)')
    assert all(f'{tmp_path}/{text}' in warning for text in named)
    assert info.endswith('6 samples, 6 image files looked up (5 opened)')
    message = error_of(dataset, max_broken_images=2)
    assert '3 image files cannot be read (max_broken_images=2): ' in message
    assert all(f'{tmp_path}/{text}' in message for text in named)


def test_an_evaluation_skips_nothing(tmp_path):
    """Whatever the data set's own mode is, which the configs of mmpretrain leave at training."""
    for mode in ('val', 'test'):
        for test_mode in (True, False):
            dataset = images(tmp_path, {'a.jpg': HTML}, test_mode=test_mode)
            assert f'1 image files cannot be read: {tmp_path}/a.jpg' in error_of(dataset, mode)


def test_no_image_to_take_in_place_of_the_broken_ones(tmp_path):
    dataset = images(tmp_path, {'a.jpg': HTML, 'b.jpg': HTML}, num_good=0)
    assert '2 image files cannot be read' in error_of(dataset)


def test_the_sample_is_spaced_evenly(tmp_path):
    dataset = images(tmp_path, {'a.jpg': HTML, 'b.jpg': HTML}, num_good=3)
    warning, info = check(dataset, max_headers=2)
    assert '1 image files cannot be read and' in warning
    assert f'{tmp_path}/b.jpg' in warning
    assert info.endswith('5 image files looked up (2 opened)')


def test_what_the_loader_reads_is_not_broken(tmp_path):
    whole = write_image(tmp_path / 'whole.jpg').read_bytes()
    (info,) = check(images(tmp_path, {'padded.jpg': whole + b'\0' * 100}))
    assert info.endswith('(4 opened)')


def test_bands_are_judged_by_the_backend(tmp_path):
    for name in ('a.tif', 'b.tif'):
        settings = {'photometric': 'minisblack', 'planarconfig': 'contig'}
        tifffile.imwrite(tmp_path / name, np.zeros((48, 64, 5), np.uint8), **settings)
    contents = {name: (tmp_path / name).read_bytes() for name in ('a.tif', 'b.tif')}
    pipeline = [LOAD | {'imdecode_backend': 'tifffile'}]
    (info,) = check(images(tmp_path, contents, num_good=0, pipeline=pipeline))
    assert info.endswith('2 image files looked up (2 opened)')
    message = error_of(images(tmp_path, contents, num_good=0))
    assert f'2 image files cannot be read (max_broken_images=10): {tmp_path}/a.tif' in message


def test_a_backend_that_does_not_read_the_format_at_all(tmp_path):
    """The headers are all good; the first file of each format is read."""
    dataset = images(tmp_path, {}, num_good=1, pipeline=[LOAD | {'imdecode_backend': 'tifffile'}])
    assert 'good0.jpg (not a TIFF file' in error_of(dataset)


class TheirLoader(LoadImageFromFile):
    """A loader of the user's own, which may read what it likes."""


class TheirPaths(BaseTransform):
    def transform(self, results):
        return results


@pytest.fixture(autouse=True)
def registered():
    for cls in (TheirLoader, TheirPaths):
        TRANSFORMS.register_module(module=cls, force=True)
    yield
    for cls in (TheirLoader, TheirPaths):
        TRANSFORMS.module_dict.pop(cls.__name__)


def test_files_that_the_user_s_own_code_reads_are_not_judged(tmp_path):
    for pipeline in ([{'type': 'TheirLoader'}], [{'type': 'TheirPaths'}, LOAD]):
        dataset = images(tmp_path, {'a.jpg': HTML, 'b.jpg': b''}, pipeline=pipeline)
        (tmp_path / 'good0.jpg').unlink()
        (info,) = check(dataset)
        assert info.endswith('5 samples, 0 image files looked up')
    dataset = images(tmp_path, {'a.jpg': HTML}, pipeline=[LOAD, {'type': 'TheirPaths'}])
    assert 'a.jpg (a web page or other text)' in check(dataset)[0]


def test_files_that_the_pipeline_is_told_to_pass_over(tmp_path):
    pipeline = [LOAD | {'ignore_empty': True}]
    dataset = images(tmp_path, {'b.jpg': b''}, pipeline=pipeline)
    (tmp_path / 'good0.jpg').unlink()
    missing, broken, _ = check(dataset, max_broken_images=0)
    assert '1 image files cannot be found and will be skipped (ignore_empty=True): ' in missing
    assert f'(ignore_empty=True): {tmp_path}/b.jpg (empty)' in broken


def test_missing_files_end_the_run(tmp_path):
    dataset = images(tmp_path, {})
    (tmp_path / 'good0.jpg').unlink()
    assert f'1 image files cannot be found: {tmp_path}/good0.jpg' in error_of(dataset)


def test_images_of_half_the_size_end_the_run(tmp_path):
    """Their boxes are those of the full size."""
    dataset = detection(tmp_path, [(32, 24)] * 6, [(64, 48)] * 6)
    message = error_of(dataset)
    assert '6 of 6 images are loaded in another size than their annotations state; ' in message
    assert 'the boxes of 6 images reach beyond what is loaded: ' in message
    assert f'{tmp_path}/0.jpg (32 x 24, annotations: 64 x 48)' in message


def test_few_images_of_another_size_are_named(tmp_path):
    dataset = detection(tmp_path, [(32, 24), *[(64, 48)] * 5], [(64, 48)] * 6)
    warning, _ = check(dataset)
    assert '1 of 6 images are loaded in another size' in warning
    assert f'{tmp_path}/0.jpg (32 x 24, annotations: 64 x 48)' in warning


def test_boxes_that_fit_may_be_right(tmp_path):
    dataset = detection(tmp_path, [(32, 24)] * 6, [(64, 48)] * 6, box=[0, 0, 32, 24])
    warning, _ = check(dataset)
    assert '6 of 6 images are loaded in another size than their annotations state: ' in warning
    (_,) = check(detection(tmp_path, [(64, 48)] * 6, [(64, 48)] * 6))


@pytest.mark.parametrize(
    ('color', 'turned'), [('color', True), ('color_ignore_orientation', False)]
)
def test_images_that_are_turned_when_they_are_loaded(tmp_path, color, turned):
    exif = Image.Exif()
    exif[0x0112] = 6
    pipeline = [LOAD | {'color_type': color}]
    dataset = detection(tmp_path, [(64, 48)] * 3, [(64, 48)] * 3, exif=exif, pipeline=pipeline)
    if turned:
        message = error_of(dataset)
        assert '3 of 3 images are turned by their EXIF orientation when they are loaded' in message
        assert "color_type='color_ignore_orientation'" in message
        assert f'{tmp_path}/0.jpg (48 x 64, annotations: 64 x 48)' in message
    else:
        assert len(check(dataset)) == 1
    stated = detection(tmp_path, [(64, 48)] * 3, [(48, 64)] * 3, exif=exif, pipeline=pipeline)
    assert len(check(stated)) == 1 if turned else 'another size' in error_of(stated)


def test_sizes_that_decoding_alone_tells(tmp_path):
    dataset = detection(tmp_path, [(32, 24)] * 2, [(64, 48)] * 2, format='BMP')
    assert '2 of 2 images are loaded in another size' in error_of(dataset)


def test_no_more_is_decoded_than_stated(tmp_path, monkeypatch):
    dataset = images(tmp_path, {'a.jpg': HTML, 'b.jpg': HTML})
    size = (tmp_path / 'good0.jpg').stat().st_size
    monkeypatch.setattr('mmwave.engine.data_checks.image_sample._DECODED_BYTES', size + len(HTML))
    assert '1 image files cannot be read and' in check(dataset)[0]
