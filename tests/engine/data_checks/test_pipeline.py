"""Steps of pipelines, those inside of wrappers too, and whose they are."""

from types import SimpleNamespace

from mmcv.transforms import BaseTransform, LoadImageFromFile, RandomApply, Resize, TestTimeAug
from mmengine.dataset import BaseDataset, Compose

from mmwave.engine.data_checks.pipeline import (
    image_step,
    inherits,
    is_stock,
    reads_as_stock,
    reads_images,
    steps,
)


class TheirOwn(BaseTransform):
    def transform(self, results):
        return results


def test_steps_inside_of_wrappers():
    pipeline = Compose([LoadImageFromFile(), RandomApply([TheirOwn(), Resize(scale=(8, 8))])])
    found = steps(SimpleNamespace(pipeline=pipeline))
    names = ['LoadImageFromFile', 'RandomApply', 'TheirOwn', 'Resize']
    assert [type(step).__name__ for step in found] == names
    assert [is_stock(step) for step in found] == [True, True, False, True]
    assert steps(SimpleNamespace()) == ()


def test_settings_of_steps_are_no_steps():
    """Albu of mmdet and mmseg keeps the settings of what it wraps under the name of a list."""
    albu = TheirOwn()
    albu.transforms = [{'type': 'HorizontalFlip'}]
    assert steps(SimpleNamespace(pipeline=Compose([albu]))) == (albu,)


class OwnList(BaseDataset):
    METAINFO = {'classes': ('a',)}

    def load_data_list(self):
        return []


class OwnItems(OwnList):
    def __getitem__(self, index):
        return index


def test_methods_that_classes_inherit():
    assert inherits(OwnList, '__getitem__', 'prepare_data')
    assert not inherits(OwnList, 'prepare_data', 'load_data_list')
    assert not inherits(OwnList, 'no_such_method')
    assert not inherits(None, 'prepare_data')
    assert reads_as_stock(OwnList(lazy_init=True))
    assert not reads_as_stock(OwnItems(lazy_init=True))


class TheirLoader(LoadImageFromFile):
    pass


class TheirData(BaseDataset):
    def load_data_list(self):
        return [{'img_path': 'x.jpg'}]


class TheirReading(TheirData):
    def prepare_data(self, index):
        return {}


def test_who_reads_the_images():
    """Stock code alone, stock code in part, or the user's own."""
    load = LoadImageFromFile()
    for transforms, reads, step in (
        ([], True, None),
        ([load, TheirOwn()], True, load),
        ([Resize(scale=(8, 8)), load], True, load),
        ([TheirOwn(), load], False, None),
        ([TheirLoader()], False, None),
        ([TheirOwn()], False, None),
    ):
        dataset = TheirData(pipeline=transforms)
        assert reads_images(dataset) is reads
        assert image_step(dataset) is step
        assert not reads_images(TheirReading(pipeline=transforms))
    dataset.pipeline = lambda info: info
    assert not reads_images(dataset)


def test_another_stock_step_reads_images_its_own_way():
    from mmseg.datasets.transforms import LoadImageFromNDArray

    dataset = TheirData(pipeline=[LoadImageFromNDArray()])
    assert reads_images(dataset)
    assert image_step(dataset) is None


def test_steps_of_the_first_of_several_views():
    sizes = [dict(type='Resize', scale=(side, side)) for side in (8, 16)]
    pipeline = Compose([LoadImageFromFile(), TestTimeAug([sizes, [TheirOwn()]])])
    found = steps(SimpleNamespace(pipeline=pipeline))
    names = ['LoadImageFromFile', 'TestTimeAug', 'Resize', 'TheirOwn']
    assert [type(step).__name__ for step in found] == names
    assert found[2].scale == (8, 8)
