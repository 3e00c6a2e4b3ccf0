"""Adding a family takes one file: what else there is of it, is optional or found."""

import os
import re
import subprocess
import sys

import pytest

from tests.contracts import ROOT

FAMILY = '''
"""A family without deploy form, converter and peer, and the data that tests need of it."""

from dataclasses import dataclass
from typing import Unpack

from torch import nn

from mmwave.models.backbones.arch import per_stage, resolve_arch
from mmwave.models.backbones.base import BackboneSettings, MLPBackbone, drop_path_rates
from mmwave.models.layers import ChannelMLP, ConvEmbed, DropPath
from mmwave.registry import MODELS
from tests.families import FAMILIES
from tests.families.data import FamilyData


@dataclass(frozen=True, kw_only=True)
class PoolMLPArch:
    depths: tuple[int, ...]
    dims: tuple[int, ...]

    def __post_init__(self):
        for name in ('depths', 'dims'):
            object.__setattr__(self, name, per_stage(name, getattr(self, name), 4))


ARCHS = {'xs': PoolMLPArch(depths=(2, 3, 4, 2), dims=(8, 12, 16, 20))}


class PoolBlock(nn.Module):
    def __init__(self, channels, drop_path, act_cfg):
        super().__init__()
        self.norm1 = nn.GroupNorm(1, channels)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        self.norm2 = nn.GroupNorm(1, channels)
        self.mlp = ChannelMLP(channels, 4 * channels, channels, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x):
        x = x + self.drop_path(self.pool(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


@MODELS.register_module()
class PoolMLP(MLPBackbone):
    archs = ARCHS

    def __init__(self, arch='xs', **settings: Unpack[BackboneSettings]):
        sizes = resolve_arch(arch, ARCHS)
        super().__init__(sizes, channels=sizes.dims, strides=(4, 8, 16, 32), **settings)
        rates, dims = drop_path_rates(self.drop_path_rate, sizes.depths), sizes.dims
        stages = range(self.num_stages)

        def embed(inputs, outputs, size, stride):
            padding = size // 2
            return ConvEmbed(
                inputs, outputs, kernel_size=size, stride=stride, padding=padding, norm=None
            )

        self.stem = embed(self.in_channels, dims[0], 7, 4)
        self.downsamples = nn.ModuleList(embed(dims[i - 1], dims[i], 3, 2) for i in stages[1:])
        self.stages = nn.ModuleList(
            nn.Sequential(*(PoolBlock(dims[i], rate, self.act_cfg) for rate in rates[i]))
            for i in stages
        )
        self.out_norms = nn.ModuleDict(
            {str(i): nn.GroupNorm(1, dims[i]) for i in self.out_indices}
        )
        self.finish()


FAMILIES['PoolMLP'] = FamilyData(
    name='PoolMLP', smallest='xs', tiny=dict(depths=(1, 1, 1, 1), dims=(4, 4, 4, 4))
)
'''


def contract(folder, family: str) -> subprocess.CompletedProcess:
    """The contract's tests of a family that is written to a file, a plugin of pytest."""
    (folder / 'pool_mlp.py').write_text(family)
    tests = [
        'tests/models/backbones/test_contract.py',
        '-k',
        'PoolMLP',
        '-m',
        'not slow and not gpu',
    ]
    return subprocess.run(
        [sys.executable, '-m', 'pytest', '-qx', '-p', 'pool_mlp', '-p', 'no:cacheprovider', *tests],
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': f'{folder}{os.pathsep}{ROOT}', 'PYTEST_ADDOPTS': ''},
        capture_output=True,
        text=True,
    )


@pytest.mark.long
@pytest.mark.parametrize('broken', [False, True])
def test_a_family_of_one_file_passes_the_contract(tmp_path, broken):
    family = FAMILY
    if broken:  # outputs after the wrong stage
        family = family.replace(
            'dims[i]) for i in self.out_indices', 'dims[0]) for i in self.out_indices'
        )
        assert family != FAMILY
    done = contract(tmp_path, family)
    passed = re.search(r'(\d+) passed', done.stdout)
    assert (done.returncode == 0) is not broken, done.stdout + done.stderr
    if not broken:
        assert int(passed[1]) >= 40, done.stdout
