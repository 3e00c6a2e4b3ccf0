"""AS-MLP in deploy form: what is folded, and what padding and the shift size do to it."""

import pytest
import torch

from mmwave.deploy import to_deploy
from mmwave.models.layers.deployed import ConstantLinear
from tests.contracts import images, relative_error
from tests.models.deployed.forms import model, run


def test_the_norm_before_an_activation_alone_keeps_scale_and_shift():
    made = model('ASMLP')
    deployed, report = to_deploy(made)
    blocks = made.num_blocks
    assert report.fused[''] == (
        f'scale and shift of 3 norms of each of {blocks} blocks into the layers behind them',
        'those of 3 patch mergings into their reductions',
    )
    names = {name for name in deployed.state_dict() if 'norm' in name}
    assert {name for name in names if name.startswith('stages')} == {
        f'stages.{i}.{j}.mixer.norm1.{leaf}'
        for i, stage in enumerate(made.stages)
        for j in range(len(stage))
        for leaf in ('weight', 'bias')
    }
    assert not [name for name in names if name.startswith('downsamples')]
    for merging in deployed.downsamples:
        assert isinstance(merging.reduction, ConstantLinear)
        assert merging.reduction.bias is not None


def test_one_level_has_no_merging_to_report():
    deployed, report = to_deploy(model('ASMLP', out_indices=(0,)))
    assert len(report.fused['']) == 1
    assert len(deployed.downsamples) == 0


@pytest.mark.parametrize('shift_size', [1, 3, 7])
def test_other_shift_sizes(shift_size):
    made = model('ASMLP', shift_size=shift_size)
    deployed, _ = to_deploy(made)
    assert deployed.shift_size == shift_size
    x = images(1, 3, 61, 45).double()
    for got, wanted in zip(run(deployed, x), run(made, x), strict=True):
        assert relative_error(got, wanted) < 1e-13


def test_padding_is_normed_as_well():
    made = model('ASMLP')
    deployed, _ = to_deploy(made)
    train, deploy = made.downsamples[0], deployed.downsamples[0]
    x = images(2, 8, 5, 7).double()
    wanted = run(train, x)
    assert wanted.shape == (2, 12, 3, 4)
    assert relative_error(run(deploy, x), wanted) < 1e-13
    with torch.no_grad():
        deploy.reduction.bias.zero_()
    assert relative_error(run(deploy, x), wanted) > 1e-3
