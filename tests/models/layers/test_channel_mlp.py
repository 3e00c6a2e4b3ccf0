"""Two layers with an activation between."""

import pytest
import torch
import torch.nn.functional as F

from mmwave.models.layers import ChannelMLP, LinearMLP
from tests.contracts import images, relative_error

CONFIGS = [dict(type='GELU'), dict(type='GELU', approximate='tanh'), dict(type='ReLU')]


def written_out(mlp, x, act_cfg):
    hidden = F.linear(x, mlp.fc1.weight.flatten(1), mlp.fc1.bias)
    name, options = act_cfg['type'].lower(), {k: v for k, v in act_cfg.items() if k != 'type'}
    hidden = getattr(F, name)(hidden, **options)
    return F.linear(hidden, mlp.fc2.weight.flatten(1), mlp.fc2.bias)


@pytest.mark.parametrize('act_cfg', CONFIGS, ids=str)
def test_both_layouts(act_cfg):
    torch.manual_seed(0)
    maps, rows = (kind(6, 8, 5, act_cfg).double() for kind in (ChannelMLP, LinearMLP))
    x = images(2, 3, 4, 6).double()
    assert relative_error(rows(x), written_out(rows, x, act_cfg)) < 1e-14
    got = maps(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    assert relative_error(got, written_out(maps, x, act_cfg)) < 1e-14


def test_parameters():
    shapes = {k: tuple(v.shape) for k, v in ChannelMLP(6, 8, 5, CONFIGS[0]).state_dict().items()}
    assert shapes == {
        'fc1.weight': (8, 6, 1, 1),
        'fc1.bias': (8,),
        'fc2.weight': (5, 8, 1, 1),
        'fc2.bias': (5,),
    }
