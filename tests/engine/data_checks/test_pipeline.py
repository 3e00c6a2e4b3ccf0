"""Steps of pipelines, those inside of wrappers too, and whose they are."""

from types import SimpleNamespace

from mmcv.transforms import BaseTransform, LoadImageFromFile, RandomApply, Resize, TestTimeAug
from mmengine.dataset import Compose

from mmwave.engine.data_checks.pipeline import is_stock, steps


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


def test_steps_of_the_first_of_several_views():
    sizes = [dict(type='Resize', scale=(side, side)) for side in (8, 16)]
    pipeline = Compose([LoadImageFromFile(), TestTimeAug([sizes, [TheirOwn()]])])
    found = steps(SimpleNamespace(pipeline=pipeline))
    names = ['LoadImageFromFile', 'TestTimeAug', 'Resize', 'TheirOwn']
    assert [type(step).__name__ for step in found] == names
    assert found[2].scale == (8, 8)
