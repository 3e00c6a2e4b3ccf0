"""Branches in deploy form: merged into matrices of each image, or map by map."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from mmwave.models.layers import ChannelMLP, PointwiseConv, blended, branch_weights
from mmwave.models.layers import blended_branches as module
from mmwave.models.layers.blended_branches import BlendedBranches
from tests.contracts import images, relative_error

CHANNELS = 4


def layers():
    torch.manual_seed(0)
    branches = [PointwiseConv(CHANNELS, CHANNELS, bias=i < 2) for i in range(3)]
    reweight = ChannelMLP(CHANNELS, 3, 3 * CHANNELS, dict(type='GELU'))
    return [x.double() for x in branches], reweight.double(), PointwiseConv(4, 4).double()


def deployed(branches, reweight, proj):
    form = BlendedBranches(branches, reweight, proj).double()
    form.load_state_dict(BlendedBranches.fold(branches, reweight, proj))
    return form


@pytest.fixture
def products(monkeypatch):
    """Sizes of the batched products of a call: those of merged matrices alone."""
    seen, real = [], torch.Tensor.baddbmm_
    monkeypatch.setattr(
        torch.Tensor, 'baddbmm_', lambda t, a, b: seen.append(tuple(a.shape)) or real(t, a, b)
    )
    return seen


@pytest.mark.parametrize(
    ('size', 'autograd', 'merged'),
    [((8, 5), False, True), ((4, 6), False, True), ((1, 23), False, False), ((8, 5), True, False)],
)
def test_equals_the_maps_blended_and_projected(size, autograd, merged, products):
    branches, reweight, proj = layers()
    inputs = [images(2, CHANNELS, *size, seed=i).double() for i in range(3)]
    shortcut = images(2, CHANNELS, *size, seed=3).double()
    maps = [branch(x) for branch, x in zip(branches, inputs, strict=True)]
    weights = branch_weights(reweight, sum(maps).mean(dim=(2, 3), keepdim=True))
    wanted = shortcut + proj(blended(maps, weights))

    form = deployed(branches, reweight, proj)
    given = [x.permute(0, 2, 3, 1).contiguous() for x in (*inputs, shortcut)]
    before = [x.clone() for x in given]
    with nullcontext() if autograd else torch.no_grad():
        got = form(given[:3], given[3])
    assert relative_error(got.permute(0, 3, 1, 2), wanted) < 1e-14
    assert products == [(2, size[0] * size[1], CHANNELS)] * 3 * merged
    for x, old in zip(given, before, strict=True):
        assert torch.equal(x, old)  # the shortcut may be somebody else's


@torch.no_grad()
@pytest.mark.parametrize('positions', [1, 10**9])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_rounds_little_in_both_ways(monkeypatch, positions, dtype):
    monkeypatch.setattr(module, 'MERGED_POSITIONS', positions)
    form = deployed(*layers())
    given = [images(2, 6, 8, CHANNELS, seed=i).to(dtype) for i in range(4)]
    wanted = form([x.double() for x in given[:3]], given[3].double())
    got = form.to(dtype)(given[:3], given[3])
    # Measured: 9.1e-8 and 6.6e-3; the matrices are rounded as well as the maps.
    assert relative_error(got.double(), wanted) < (3e-7 if dtype is torch.float32 else 1.2e-2)


def test_an_activation_with_parameters_is_kept():
    branches, reweight, proj = layers()
    reweight.act = nn.PReLU(init=0.1).double()
    form = deployed(branches, reweight, proj)
    assert form.reweight.act.weight.item() == pytest.approx(0.1)


def test_two_branches():
    branches, _, proj = layers()
    reweight = ChannelMLP(CHANNELS, 3, 2 * CHANNELS, dict(type='GELU')).double()
    form = deployed(branches[:2], reweight, proj)
    maps = [branch(images(1, 4, 2, 3, seed=i).double()) for i, branch in enumerate(branches[:2])]
    weights = branch_weights(reweight, sum(maps).mean(dim=(2, 3), keepdim=True), 2)
    given = [images(1, 4, 2, 3, seed=i).double().permute(0, 2, 3, 1) for i in range(2)]
    got = form(given, torch.zeros_like(given[0])).permute(0, 3, 1, 2)
    assert relative_error(got, proj(blended(maps, weights))) < 1e-14
