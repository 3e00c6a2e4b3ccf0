"""Hire-MLP in deploy form: what is folded, the order of a region's channels, what is copied."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mmwave.deploy import to_deploy
from mmwave.models.backbones.hiremlp import HireMixer
from mmwave.models.deployed.hiremlp import FusedRegionMLP, FusedRows
from tests.contracts import images, randomise_norms, relative_error
from tests.models.deployed.forms import model, run


def test_every_norm_but_those_of_the_outputs_is_folded():
    deployed, report = to_deploy(model('HireMLP'))
    lines = ' '.join(report.fused[''])
    assert 'norms of 4 embeddings' in lines
    assert 'inside 5 token mixers' in lines
    left = [name for name, m in deployed.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert left == [f'out_norms.{i}' for i in range(4)]


@pytest.mark.parametrize('branch', ['rows', 'columns', 'channel'])
def test_every_branch_has_weights_of_its_own(branch):
    made = model('HireMLP')
    deployed, _ = to_deploy(made)
    x = images(1, 3, 64, 64).double()
    part = getattr(deployed.stages[1][0].mixer, branch)
    with torch.no_grad():
        (part if branch == 'channel' else part.fc2).bias[3] += 0.1
    assert relative_error(run(deployed, x)[3], run(made, x)[3]) > 1e-6


def test_maps_rolled_backward_stay_so():
    made = model('HireMLP', 'long shifts', shift_direction='backward')
    x = images(1, 3, 64, 48).double()
    wanted = run(made, x)
    deployed, _ = to_deploy(made)
    for got, level in zip(run(deployed, x), wanted, strict=True):
        assert relative_error(got, level) < 1e-13
    forward = model('HireMLP', 'long shifts')
    forward.load_state_dict(made.state_dict())
    assert relative_error(run(forward, x)[1], wanted[1]) > 1e-3


class Copies(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        name = str(operator.overloadpacket)
        self.count += name in ('aten.index_select', 'aten.clone', 'aten.cat', 'aten.copy_')
        return operator(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ('width', 'shift', 'copies'), [(12, 0, 0), (12, 2, 2), (12, -2, 2), (11, 0, 2), (11, 2, 2)]
)
def test_regions_of_columns_are_views_where_they_can_be(width, shift, copies):
    """Those of rows are one copy there and one back, whatever the size and the step."""
    torch.manual_seed(0)
    mixer = HireMixer(8, 4, shift, dict(type='GELU')).eval()
    randomise_norms(mixer)
    for kind, part, size, wanted in (
        (FusedRegionMLP, mixer.columns, (5, width), copies),
        (FusedRows, mixer.rows, (width, 5), 2),
    ):
        fused = kind(part)
        x = images(2, *size, 8)
        with torch.no_grad(), Copies() as mode:
            fused(x)
        assert mode.count == wanted
