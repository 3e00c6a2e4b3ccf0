"""Parts that would fix the size of images."""

import pytest
import torch
from torch import nn

from mmwave.apis import UsageError
from mmwave.export.sizes import FreeUpsample, free_sizes
from tests.contracts import images
from tests.export.models import Upsample


@pytest.mark.parametrize('scale', [2, 4.0])
def test_upsampling_is_replaced_by_what_computes_the_same(scale):
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(Upsample(scale)))
    x = images(2, 3, 5, 7)
    wanted = model(x)
    free_sizes(model)
    assert isinstance(model[1][0], FreeUpsample)
    assert torch.equal(model(x), wanted)


def test_what_holds_for_one_size_is_refused_in_one_line():
    with pytest.raises(UsageError, match=r'^1 pools to 3 x 3 positions, .*--fixed HxW$'):
        free_sizes(nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(3)))
    with pytest.raises(UsageError, match=r'^0 pools to 2 x 6 positions, .*--fixed HxW$'):
        free_sizes(nn.Sequential(nn.AdaptiveMaxPool2d((2, 6))))
    with pytest.raises(UsageError, match=r'^0 resizes by 1\.5, .*--fixed HxW$'):
        free_sizes(nn.Sequential(Upsample(1.5)))


@pytest.mark.parametrize('part', [nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((1, 1)), nn.ReLU()])
def test_others_stay(part):
    model = nn.Sequential(part)
    free_sizes(model)
    assert model[0] is part
