"""Steps of pipelines, those inside of wrappers too, and whose they are."""

from types import SimpleNamespace

from mmcv.transforms import BaseTransform, LoadImageFromFile, RandomApply, Resize
from mmengine.dataset import BaseDataset, Compose

from mmwave.engine.data_checks.pipeline import image_step, is_stock, reads_images, steps


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
