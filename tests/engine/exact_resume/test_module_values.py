"""What a model keeps beside its state dict."""

import torch
from torch import nn

from mmwave.engine.exact_resume.module_values import ModuleValues, is_values


class Assigner:
    threshold = 0.5

    def __init__(self):
        self.threshold = 0.5


class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.size = None
        self.history = []
        self.assigner = Assigner()
        self.grid_of = None
        self.inner = nn.Linear(2, 2)


class Cached(Head):
    grid = None


def changed(model):
    model.size, model.assigner.threshold = (32, torch.Size([1])[0]), 0.625
    model.history.append(0.25)
    return model


def test_what_changes_is_taken_over():
    model = Head()
    values = ModuleValues(model)
    assert values.changed() == {}
    model.train(False)
    changed(model)
    found = values.changed()
    assert found == {
        '': {'size': (32, 1), 'history': [0.25]},
        ':assigner': {'threshold': 0.625},
    }
    assert is_values(found)
    resumed = Head()
    again = ModuleValues(resumed)
    again.restore(found)
    assert (resumed.size, resumed.history, resumed.assigner.threshold) == ((32, 1), [0.25], 0.625)
    assert again.changed() == found
    model.history.append(1.0)
    assert found['']['history'] == [0.25]


def test_a_cached_tensor_leaves_its_size_out():
    model = Cached()
    values = ModuleValues(model)
    model.grid, model.grid_of = torch.ones(2), (1, 2)
    assert values.changed() == {}


def test_methods_and_modules_are_not_set():
    model = Head()
    ModuleValues(model).restore({'': {'forward': 1, 'inner': 2, 'training': 0}, 'gone': {'a': 1}})
    assert callable(model.forward)
    assert isinstance(model.inner, nn.Linear)
    assert model.training is True


def test_what_a_checkpoint_may_say():
    assert not is_values([])
    assert not is_values({'a': 1})
    assert not is_values({'a': {'b': torch.ones(1)}})
    assert not is_values({'a': {1: 1}})
