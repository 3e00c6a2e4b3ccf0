"""CycleMLP in deploy form: which blocks merge their matrices, and in which order they blend."""

import pytest
import torch

from mmwave.deploy import to_deploy
from mmwave.models import CycleMLP
from mmwave.models.layers import blended_branches
from mmwave.models.layers.blended_branches import BlendedBranches
from tests.contracts import images, relative_error
from tests.models.deployed.forms import model, run


@pytest.mark.parametrize('positions', [0, 10**9], ids=['merged', 'maps'])
@pytest.mark.parametrize('branch', ['width', 'height', 'channel'])
def test_every_branch_has_a_weight_of_its_own(branch, positions, monkeypatch):
    """Weights of the blend are side by side here, and neighbours in train form."""
    monkeypatch.setattr(blended_branches, 'MERGED_POSITIONS', positions)
    made = model('CycleMLP')
    with torch.no_grad():
        for stage in made.stages:
            for block in stage:
                getattr(block.mixer, branch).weight.zero_()
    deployed, _ = to_deploy(made)
    x = images(1, 3, 64, 64).double()
    for got, wanted in zip(run(deployed, x), run(made, x), strict=True):
        assert relative_error(got, wanted) < 1e-13


@torch.no_grad()
def test_large_maps_of_few_channels_are_merged(monkeypatch):
    """At 224 x 224 those of the first two stages."""
    merged, real = [], BlendedBranches._merged

    def spy(self, inputs, weights, shortcut):
        merged.append(shortcut.shape[1:3])
        return real(self, inputs, weights, shortcut)

    monkeypatch.setattr(BlendedBranches, '_merged', spy)
    made = CycleMLP(dict(depths=(1, 2, 1, 1), dims=(64, 128, 320, 512))).eval()
    deployed, _ = to_deploy(made)
    deployed(images(1, 3, 224, 224))
    assert merged == [(56, 56), (28, 28), (28, 28)]
