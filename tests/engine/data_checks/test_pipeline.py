"""Steps of pipelines, those inside of wrappers too, and whose they are."""

from types import SimpleNamespace

from mmcv.transforms import BaseTransform, LoadImageFromFile, RandomApply, Resize
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
