"""ActiveMLP in deploy form: what cannot be folded, and offsets that go from block to block."""

import pytest
import torch

from mmwave.deploy import to_deploy
from tests.contracts import images, relative_error
from tests.models.deployed.forms import model, run


def test_a_shift_of_the_norm_ends_where_the_map_does():
    """What is sampled beyond the map is zero, not the norm's shift."""
    made = model('ActiveMLP')
    with torch.no_grad():
        for stage in made.stages:
            for block in stage:
                block.norm1.bias.fill_(1)
                if block.offsets is not None:
                    block.offsets.proj.bias.fill_(2.5)
    deployed, _ = to_deploy(made)
    x = images(1, 3, 40, 72).double()
    for got, wanted in zip(run(deployed, x), run(made, x), strict=True):
        assert relative_error(got, wanted) < 1e-13


@pytest.mark.parametrize('branch', ['width', 'height', 'channel'])
def test_every_branch_has_a_weight_of_its_own(branch):
    """Weights of the blend are side by side here, and neighbours in train form."""
    made = model('ActiveMLP')
    with torch.no_grad():
        for stage in made.stages:
            for block in stage:
                getattr(block.mixer, branch).weight.zero_()
    deployed, _ = to_deploy(made)
    x = images(1, 3, 64, 64).double()
    for got, wanted in zip(run(deployed, x), run(made, x), strict=True):
        assert relative_error(got, wanted) < 1e-13


def test_the_position_convolution_of_a_stage_is_stored_once():
    made = model('ActiveMLP', 'again')
    deployed, report = to_deploy(made)
    names = {name for name in deployed.state_dict() if '.position.' in name}
    assert names == {f'stages.{i}.0.position.{p}' for i in range(4) for p in ('weight', 'bias')}
    assert 'the norms in front of 5 offset layers into these' in report.fused['']
