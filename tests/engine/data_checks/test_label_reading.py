"""Label maps are judged where stock steps alone see them, as those steps read them."""

import numpy as np
import pytest
import tifffile
from mmcv.transforms import BaseTransform
from mmengine.dataset import ConcatDataset
from mmengine.model import BaseDataPreprocessor
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image

from mmwave.engine.data_checks.findings import DataError
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

FLIP = {'type': 'RandomFlip', 'prob': 1.0}
TWO = {'metainfo': {'classes': ('road', 'sky')}}


class Remap(BaseTransform):
    """0 and 128 become 0 and 1."""

    def transform(self, results):
        results['gt_seg_map'] = results['gt_seg_map'] // 128
        return results


class Enlarge(BaseTransform):
    """A label map of half the size becomes as large as the image."""

    def transform(self, results):
        results['gt_seg_map'] = results['gt_seg_map'].repeat(2, axis=0).repeat(2, axis=1)
        return results


class Nothing(BaseTransform):
    def transform(self, results):
        return results


class OwnReader(LoadAnnotations):
    def _load_seg_map(self, results):
        results['gt_seg_map'] = np.load(results['seg_map_path'])


class OwnReading(BaseSegDataset):
    def prepare_data(self, index):
        return index


class OwnInfo(BaseSegDataset):
    def get_data_info(self, index):
        return super().get_data_info(index)


class OwnItems(BaseSegDataset):
    def __getitem__(self, index):
        return index


class OwnList(BaseSegDataset):
    METAINFO = {'classes': ('road', 'sky')}

    def load_data_list(self):
        return super().load_data_list()


def is_judged(dataset, **settings) -> bool:
    try:
        records = check(dataset, **settings)
    except DataError:
        return True
    return 'label maps read' in records[-1]


def with_steps(root, values, *steps, reader=None, loader=None, **settings):
    """Return a data set of one sample whose pipeline goes on with ``steps``."""
    pipeline = segmentation_steps(**(reader or {}))
    pipeline[0] |= loader or {}
    pipeline = [*pipeline, *steps]
    return segmentation_data(root, {'a': values}, pipeline=pipeline, **(TWO | settings))


class TestStepsOfTheUsersOwn:
    def test_that_remaps_values(self, tmp_path):
        dataset = with_steps(tmp_path, labels(0, 128), Remap())
        assert np.unique(dataset[0]['gt_seg_map']).tolist() == [0, 1]
        assert check(dataset)[-1].endswith('label maps left to Remap')
        assert 'labels 128' in error_of(with_steps(tmp_path, labels(0, 128)))

    def test_that_changes_the_size(self, tmp_path):
        dataset = with_steps(tmp_path, labels(shape=(24, 32)), Enlarge())
        sample = dataset[0]
        assert sample['gt_seg_map'].shape == sample['img'].shape[:2]
        assert not is_judged(dataset)

    def test_inside_of_a_wrapper(self, tmp_path):
        wrapped = {'type': 'RandomApply', 'transforms': [Remap()]}
        assert not is_judged(with_steps(tmp_path, labels(128), wrapped))

    def test_a_missing_map_is_named_all_the_same(self, tmp_path):
        dataset = with_steps(tmp_path, labels(), Remap())
        (tmp_path / 'ann' / 'a.png').unlink()
        assert f'1 label maps cannot be found: {tmp_path}/ann/a.png' in error_of(dataset)

    def test_before_the_reader(self, tmp_path):
        """It may change the path, so that a missing file is warned of alone."""
        loader, reader = segmentation_steps()
        steps = [loader, Nothing(), reader]
        dataset = segmentation_data(tmp_path, {'a': labels(128)}, pipeline=steps, **TWO)
        assert not is_judged(dataset)
        (tmp_path / 'ann' / 'a.png').unlink()
        warning, _ = check(dataset)
        assert warning.startswith('WARNING')
        assert f'label maps cannot be found: {tmp_path}/ann/a.png' in warning

    def test_that_reads_in_a_way_of_its_own(self, tmp_path):
        steps = [{'type': 'LoadImageFromFile'}, OwnReader()]
        dataset = segmentation_data(tmp_path, {'a': labels(128)}, pipeline=steps, **TWO)
        (tmp_path / 'ann' / 'a.png').unlink()
        assert not is_judged(dataset)

    def test_a_reader_that_runs_at_times(self, tmp_path):
        loader, reader = segmentation_steps()
        steps = [loader, {'type': 'RandomApply', 'transforms': [reader]}]
        assert not is_judged(segmentation_data(tmp_path, {'a': labels(9)}, pipeline=steps, **TWO))

    def test_of_a_data_set_around_it(self, tmp_path):
        from mmseg.datasets import MultiImageMixDataset

        inner = ConcatDataset([with_steps(tmp_path, labels(9))])
        mosaic = {'type': 'mmseg.RandomMosaic', 'prob': 1.0}
        assert is_judged(MultiImageMixDataset(dataset=inner, pipeline=[mosaic]))
        own = MultiImageMixDataset(dataset=inner, pipeline=[mosaic])
        own.pipeline.append(Remap())
        assert not is_judged(own)

    def test_of_the_model(self, tmp_path):
        class OwnPreprocessor(BaseDataPreprocessor):
            pass

        dataset = with_steps(tmp_path, labels(9))
        assert is_judged(dataset, net=model(data_preprocessor=BaseDataPreprocessor()))
        assert not is_judged(dataset, net=model(data_preprocessor=OwnPreprocessor()))
        wrapped = model(module=model(data_preprocessor=OwnPreprocessor()))
        assert not is_judged(dataset, net=wrapped)


@pytest.mark.parametrize(
    ('kind', 'judged'), [(OwnReading, False), (OwnInfo, False), (OwnItems, False), (OwnList, True)]
)
def test_data_sets_of_the_users_own(tmp_path, kind, judged):
    write_image(tmp_path / 'img' / 'a.jpg')
    write_labels(tmp_path / 'ann' / 'a.png', labels(9))
    prefix = {'img_path': 'img', 'seg_map_path': 'ann'}
    pipeline = segmentation_steps()
    dataset = kind(data_root=str(tmp_path), data_prefix=prefix, pipeline=pipeline, **TWO)
    assert is_judged(dataset) == judged


def test_other_readers_of_the_libraries(tmp_path):
    """Of mmdet and of mmcv, whose maps follow other rules."""
    for kind in ('mmdet.LoadAnnotations', 'mmcv.LoadAnnotations'):
        step = {'type': kind, 'with_bbox': False, 'with_label': False, 'with_seg': True}
        dataset = segmentation_data(tmp_path, {'a': labels(9)}, pipeline=[step], **TWO)
        assert map_reading(dataset) is None
        check(dataset)


class TestBackends:
    def test_palette(self, tmp_path):
        """OpenCV makes colours of what Pillow reads as indices."""
        dataset = with_steps(tmp_path, labels(0, 1))
        image = Image.frombytes('P', (64, 48), labels(0, 1).tobytes())
        image.putpalette([200, 30, 40] * 256)
        image.save(tmp_path / 'ann' / 'a.png')
        assert dataset[0]['gt_seg_map'].shape == (48, 64)
        check(dataset)
        dataset = with_steps(tmp_path / 'cv2', labels(0, 1), reader={'imdecode_backend': 'cv2'})
        image.save(tmp_path / 'cv2' / 'ann' / 'a.png')
        assert dataset[0]['gt_seg_map'].shape == (48, 64, 3)
        assert '(label map has 3 channels, expected 1)' in error_of(dataset)

    @pytest.mark.parametrize('backend', ['pillow', 'cv2', 'tifffile'])
    @pytest.mark.parametrize('times', [1.5, 2.5])
    @pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
    def test_larger_than_pillows_limit(self, tmp_path, monkeypatch, backend, times):
        """Pillow warns above the limit and refuses twice as many pixels; the others read them."""
        dataset = with_steps(
            tmp_path, labels(0, 1), reader={'imdecode_backend': backend}, seg_map_suffix='.tif'
        )
        tifffile.imwrite(tmp_path / 'ann' / 'a.tif', labels(0, 1))
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', int(48 * 64 / times))
        if backend == 'pillow' and times > 2:
            with pytest.raises(Image.DecompressionBombError):
                dataset[0]
            assert 'a.tif (Image size (3072 pixels) exceeds limit' in error_of(dataset)
        else:
            assert dataset[0]['gt_seg_map'].shape == (48, 64)
            assert '1 label maps read' in check(dataset)[-1]

    def test_a_file_that_opencv_cannot_decode(self, tmp_path):
        dataset = with_steps(tmp_path, labels(), reader={'imdecode_backend': 'cv2'})
        (tmp_path / 'ann' / 'a.png').write_text('no image')
        assert 'a.png (cv2 cannot decode it)' in error_of(dataset)

    @pytest.mark.parametrize('bands', [1, 3, 4, 5])
    def test_image_of_many_bands(self, tmp_path, bands):
        loader = {'imdecode_backend': 'tifffile', 'color_type': 'unchanged'}
        dataset = with_steps(tmp_path, labels(0, 1), loader=loader)
        path = tmp_path / 'img' / 'a.jpg'
        tifffile.imwrite(path, np.zeros((48, 64, bands), np.uint16), photometric='minisblack')
        assert dataset[0]['img'].shape[:2] == (48, 64)
        check(dataset)
        tifffile.imwrite(path, np.zeros((40, 64, bands), np.uint16), photometric='minisblack')
        assert 'label map is 48 x 64, image is 40 x 64' in error_of(dataset)

    def test_an_image_that_something_else_loads(self, tmp_path):
        pipeline = [{'type': 'mmseg.LoadBiomedicalImageFromFile'}, *segmentation_steps()[1:]]
        settings = {'pipeline': pipeline, **TWO}
        dataset = segmentation_data(tmp_path, {'a': labels(shape=(10, 10))}, **settings)
        assert '1 label maps read' in check(dataset)[-1]


@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
@pytest.mark.parametrize('orientation', [1, 3, 6])
@pytest.mark.parametrize('colours', ['color', 'grayscale', 'unchanged', 'color_ignore_orientation'])
def test_orientation_by_exif(tmp_path, backend, orientation, colours):
    """The size is that of the image as it is loaded."""
    loader = {'imdecode_backend': backend, 'color_type': colours}
    exif = Image.Exif()
    exif[0x0112] = orientation
    for shape in ((48, 64), (64, 48)):
        dataset = with_steps(tmp_path, labels(0, 1, shape=shape), loader=loader)
        write_image(tmp_path / 'img' / 'a.jpg', exif=exif)
        if dataset[0]['img'].shape[:2] == shape:
            check(dataset)
        else:
            assert f'label map is {shape[0]} x {shape[1]}, image is' in error_of(dataset)


class TestSizesThatDiffer:
    HALF = (24, 32)

    @pytest.mark.parametrize(
        'step',
        [
            {'type': 'Resize', 'scale': (40, 40)},
            {'type': 'Resize', 'scale': (40, 40), 'keep_ratio': True},
            {'type': 'RandomResize', 'scale': (40, 40), 'keep_ratio': True, 'ratio_range': (1, 2)},
            {'type': 'RandomChoiceResize', 'scales': [(32, 32)]},
        ],
    )
    def test_made_one_by_the_next_step(self, tmp_path, step):
        """As mmseg trains on them, in silence."""
        dataset = with_steps(tmp_path, labels(0, 1, shape=self.HALF), step)
        flipped = with_steps(tmp_path, labels(0, 1, shape=self.HALF), FLIP, step)
        for sample in (dataset[0], flipped[0]):
            assert sample['gt_seg_map'].shape == sample['img'].shape[:2]
        warning = check(dataset)[0]
        assert check(flipped)[0] == warning
        assert f'of another size than their image, until {step["type"]} makes them one' in warning
        assert '(label map is 24 x 32, image is 48 x 64)' in warning

    @pytest.mark.parametrize(
        ('shape', 'step'),
        [
            ((24, 24), {'type': 'Resize', 'scale': (40, 40), 'keep_ratio': True}),
            (HALF, {'type': 'mmseg.RandomCrop', 'crop_size': (32, 32)}),
            (HALF, FLIP),
        ],
    )
    def test_not_made_one(self, tmp_path, shape, step):
        dataset = with_steps(tmp_path, labels(0, 1, shape=shape), step)
        assert 'image is 48 x 64' in error_of(dataset)

    def test_resized_before_the_reader(self, tmp_path):
        """As in pipelines for testing: the label map keeps its size, and must have the image's."""
        loader, reader = segmentation_steps()
        steps = [loader, {'type': 'Resize', 'scale': (40, 40)}, reader]
        maps = {'a': labels(0, 1, shape=self.HALF)}
        dataset = segmentation_data(tmp_path, maps, pipeline=steps, **TWO)
        assert 'label map is 24 x 32, image is 48 x 64' in error_of(dataset)


@pytest.mark.parametrize(('step', 'own'), [(True, False), (False, True), (False, False)])
def test_reduce_zero_label_of_pipeline_and_data_set(tmp_path, step, own):
    reader = {'reduce_zero_label': step}
    dataset = with_steps(tmp_path, labels(1, 2), reader=reader, reduce_zero_label=own)
    if step == own:
        assert dataset[0]['gt_seg_map'].max() == 2
        assert 'labels 2; expected 0..1' in error_of(dataset)
        return
    with pytest.raises(AssertionError):
        dataset[0]
    message = error_of(dataset, net=model(decode_head=head(2)))
    assert f'reduce_zero_label is {step} in LoadAnnotations and {own} in the data set' in message
