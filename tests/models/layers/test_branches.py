"""Branches blended by weights of their channels."""

import pytest
import torch
from torch import nn

from mmwave.models.layers import blended, branch_weights
from mmwave.models.layers.branches import by_branch
from tests.contracts import images, relative_error


@pytest.mark.parametrize('branches', [2, 3])
def test_weights_of_a_channel_are_neighbours_and_sum_to_one(branches):
    torch.manual_seed(0)
    reweight = nn.Linear(4, 4 * branches).double()
    pooled = images(2, 4).double()
    weights = branch_weights(reweight, pooled, branches)
    logits = reweight(pooled)
    for n in range(2):
        for c in range(4):
            wanted = logits[n, branches * c : branches * (c + 1)].softmax(0)
            got = torch.stack([weight[n, c] for weight in weights])
            assert relative_error(got, wanted) < 1e-15
    assert relative_error(sum(weights), torch.ones(2, 4).double()) < 1e-15


def test_blended_is_the_weighted_sum():
    maps = [images(2, 3, 4, 5, seed=i).double() for i in range(3)]
    weights = [images(2, 3, 1, 1, seed=i + 3).double() for i in range(3)]
    wanted = sum(m * w for m, w in zip(maps, weights, strict=True))
    assert relative_error(blended(maps, weights), wanted) < 1e-15


def test_a_deploy_form_has_the_weights_of_a_branch_together():
    rows = torch.arange(6)[:, None]  # channel 0: branches 0, 1, 2; channel 1: branches 3, 4, 5
    assert by_branch(rows).flatten().tolist() == [0, 3, 1, 4, 2, 5]
