"""RepMLPNet in deploy form: local perceptrons as matrices."""

import pytest
import torch

from mmwave.deploy import to_deploy
from mmwave.models.deployed import repmlpnet
from tests.contracts import images, relative_error
from tests.families import FAMILIES
from tests.models.deployed.forms import model, run


@pytest.mark.parametrize('variant', ['tiny', *FAMILIES['RepMLPNet'].variants])
def test_no_branch_and_no_norm_is_left(variant):
    deployed, _ = to_deploy(model('RepMLPNet', variant))
    norms = [n for n, m in deployed.named_modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms == [f'out_norms.{i}' for i in range(4)]
    assert 'local_perceptron' not in ' '.join(deployed.state_dict())


def test_the_comparison_sees_a_transposed_kernel(monkeypatch):
    right = repmlpnet.conv_to_fc
    monkeypatch.setattr(repmlpnet, 'conv_to_fc', lambda k, w: right(k.transpose(2, 3), w))
    made = model('RepMLPNet')
    deployed, _ = to_deploy(made)
    x = images(2, 3, 64, 64).double()
    assert relative_error(run(deployed, x)[0], run(made, x)[0]) > 1e-4
