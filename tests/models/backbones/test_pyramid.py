"""What backbones of four stages with strides 4, 8, 16 and 32 share."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from mmwave.models.backbones.pyramid import (
    PyramidBackbone,
    check_blend,
    overlapping_downsample,
    overlapping_stem,
)
from mmwave.structures import StageInfo
from tests.contracts import images


@dataclass(frozen=True)
class Sizes:
    depths: tuple = (1, 2, 1, 3)
    dims: tuple = (4, 6, 8, 10)


class Block(nn.Identity):
    def __init__(self, *given):
        super().__init__()
        self.given = given


class Pyramid(PyramidBackbone):
    def __init__(self, **settings):
        super().__init__(Sizes(), **settings)
        self.build(
            stem=lambda c_in, c_out: overlapping_stem(c_in, c_out, norm=None),
            downsample=lambda c_in, c_out: overlapping_downsample(c_in, c_out, norm=None),
            block=Block,
            norm=nn.BatchNorm2d,
        )


def test_parts_are_built_of_their_stage_number_and_rate():
    model = Pyramid(in_channels=2, out_indices=(0, 3), drop_path_rate=0.6)
    given = [[block.given for block in stage] for stage in model.stages]
    rates = iter(torch.linspace(0, 0.6, 7).tolist())
    wanted = [
        [(i, j, pytest.approx(next(rates))) for j in range(depth)]
        for i, depth in enumerate(Sizes.depths)
    ]
    assert given == wanted
    assert [e.conv.in_channels for e in (model.stem, *model.downsamples)] == [2, 4, 6, 8]
    assert {k: norm.num_features for k, norm in model.out_norms.items()} == {'0': 4, '3': 10}
    assert model.stage_info == (StageInfo(4, 4), StageInfo(10, 32))


def test_stages_behind_the_last_output_are_not_built():
    model = Pyramid(out_indices=(1,))
    assert (len(model.stages), len(model.downsamples)) == (2, 1)


@pytest.mark.parametrize(
    ('size', 'rows'),
    [((32, 333), [8, 4, 2, 1]), ((47, 33), [12, 6, 3, 2]), ((38, 64), [9, 5, 3, 2])],
)
def test_maps_have_channels_last_in_memory_and_sizes_that_are_rounded(size, rows):
    outputs = Pyramid().eval()(images(2, 3, *size))
    assert [o.shape[2] for o in outputs] == rows
    assert all(o.is_contiguous(memory_format=torch.channels_last) for o in outputs)


def test_the_stem_drops_columns_that_its_kernel_does_not_reach():
    assert overlapping_stem(3, 4, norm=None)(images(1, 3, 32, 333)).shape == (1, 4, 8, 83)


def test_too_small_images_and_narrow_blends_are_refused():
    with pytest.raises(ValueError, match='at least 32'):
        Pyramid()(images(1, 3, 31, 32))
    with pytest.raises(ValueError, match=r'dims=\(8, 6\) must be multiples of 4'):
        check_blend((8, 6))
