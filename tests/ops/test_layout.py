"""The memory format ``torch.channels_last``."""

import torch
from torch.func import vmap

from mmwave.ops.layout import channels_last, is_channels_last
from tests.contracts import images


def test_a_map_is_copied_once():
    x = images(2, 3, 4, 5)
    assert not is_channels_last(x)
    copied = channels_last(x)
    assert is_channels_last(copied)
    assert copied.stride() == (60, 1, 15, 3)
    assert torch.equal(copied, x)
    assert channels_last(copied) is copied


def test_tensors_of_a_transform_are_returned_as_they_are():
    seen = []

    def run(x):
        seen.append((channels_last(x) is x, is_channels_last(x)))
        return x

    vmap(run)(images(2, 1, 3, 4, 5))
    assert seen == [(True, False)]
