"""Means over maps."""

import pytest
import torch

from mmwave.ops.mean import mean_over
from tests.contracts import images
from tests.graphs import recorded


@pytest.mark.parametrize('axes', [(1, 2), (2, 3), (0,)])
def test_equal_to_torchs_in_float32(axes):
    x = images(3, 5, 7, 9)
    assert torch.equal(mean_over(x, *axes), x.mean(dim=axes))


def test_rounded_once_or_twice_in_bfloat16():
    x = (images(2, 64, 60, 60) + 1).bfloat16()
    wanted = x.double().mean(dim=(2, 3))
    got = mean_over(x, 2, 3)
    assert got.dtype == torch.bfloat16
    # A sum in bfloat16 would stop growing at 256.
    assert ((got.double() - wanted).abs() / wanted.abs()).max() < torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_in_graphs_with_dynamic_sizes(dtype):
    x = images(2, 3, 9, 14).to(dtype)
    got, _ = recorded(lambda x: mean_over(x, 2, 3), x.clone(), open_axes=(2, 3))
    assert torch.equal(got, mean_over(x, 2, 3))
