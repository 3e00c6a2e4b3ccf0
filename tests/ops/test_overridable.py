"""Functions of ours beside torch's in a ``TorchFunctionMode``."""

import torch
from torch.overrides import TorchFunctionMode

from mmwave.ops.overridable import overridable


@overridable
def tripled(x, times=3):
    """Return three times ``x``."""
    return x * times


class Seen(TorchFunctionMode):
    """Store the names of what is called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(func.__name__)
        return func(*args, **(kwargs or {}))


def test_a_mode_sees_one_call():
    x = torch.ones(2)
    with Seen() as seen:
        result = tripled(x, times=2)
    assert result.tolist() == [2, 2]
    assert seen.names == ['tripled']
    with Seen() as seen:
        tripled.__wrapped__(x)
    assert seen.names == ['mul']


def test_without_a_mode_it_is_the_function():
    assert tripled(torch.ones(1)).tolist() == [3]
    assert (tripled.__name__, tripled.__doc__) == ('tripled', 'Return three times ``x``.')
