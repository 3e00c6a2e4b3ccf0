"""The model inside of a wrapper."""

from mmengine.model import BaseModel, BaseTTAModel
from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from mmwave.engine.model_wrapper import unwrapped, unwrapped_settings


class Outer(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module


def test_a_wrapper_is_taken_off(monkeypatch):
    model = nn.Linear(1, 1)
    assert unwrapped(Outer(model)) is not model  # a part may be called so
    monkeypatch.setitem(MODEL_WRAPPERS._module_dict, 'Outer', Outer)
    assert unwrapped(Outer(model)) is model
    assert unwrapped(model) is model


class Merging(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list


class Toy(BaseModel):
    def forward(self, inputs):
        return inputs


def test_test_time_augmentation_is_taken_off_under_a_wrapper(monkeypatch):
    model = Toy()
    merging = Merging(module=model)
    monkeypatch.setitem(MODEL_WRAPPERS._module_dict, 'Outer', Outer)
    assert unwrapped(merging) is unwrapped(Outer(merging)) is model
    assert unwrapped(Outer(merging), from_tta=False) is merging
    assert unwrapped(Outer(model), from_tta=False) is model


def test_settings_inside_of_test_time_augmentation_s():
    plain = dict(type='RetinaNet', backbone=dict(type='ResNet'))
    assert unwrapped_settings(plain) is plain
    assert unwrapped_settings(dict(type='DetTTAModel', module=plain)) is plain
    assert unwrapped_settings({}) == {}
