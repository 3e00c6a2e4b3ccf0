"""The model inside of a wrapper."""

from mmengine.registry import MODEL_WRAPPERS
from torch import nn

from mmwave.engine.model_wrapper import unwrapped


def test_a_wrapper_is_taken_off(monkeypatch):
    class Wrapper(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module = module

    model = nn.Linear(1, 1)
    assert unwrapped(Wrapper(model)) is not model  # a part may be called so
    monkeypatch.setitem(MODEL_WRAPPERS._module_dict, 'Wrapper', Wrapper)
    assert unwrapped(Wrapper(model)) is model
    assert unwrapped(model) is model
