"""What tables share: shapes of layers, archs as configs hold them, blocks in stages."""

import pytest
from torch import nn

from mmwave.convert.isotropic import stages_of
from mmwave.convert.shapes import batch_norm_shapes, custom_arch, layer_shapes
from mmwave.models.backbones.grid import four_stages


@pytest.mark.parametrize(
    ('layer', 'shapes'),
    [
        (nn.Linear(3, 5), layer_shapes('a.b', 5, 3)),
        (nn.Linear(3, 5, bias=False), layer_shapes('a.b', 5, 3, bias=False)),
        (nn.Conv2d(4, 6, (1, 7), groups=2), layer_shapes('a.b', 6, 2, 1, 7)),
        (nn.LayerNorm(7), layer_shapes('a.b', 7)),
        (nn.BatchNorm2d(7), batch_norm_shapes('a.b', 7)),
    ],
    ids=['linear', 'linear without bias', 'convolution', 'layer norm', 'batch norm'],
)
def test_shapes_are_those_of_the_layers(layer, shapes):
    assert shapes == {f'a.b.{k}': tuple(v.shape) for k, v in layer.state_dict().items()}


def test_archs_as_configs_hold_them():
    arch = {'depths': (1, 2), 'dim': 8, 'patch_size': 16, 'grid': (14, 14)}
    assert custom_arch(arch) == {**arch, 'depths': [1, 2], 'grid': [14, 14]}
    assert custom_arch(arch, {'patch_size': 16, 'grid': 14, 'mlp_ratio': 4}) == {
        'depths': [1, 2],
        'dim': 8,
        'grid': [14, 14],
    }


@pytest.mark.parametrize('depth', range(1, 41))
def test_blocks_fall_into_the_stages_of_the_models(depth):
    assert stages_of(depth) == four_stages(depth)
