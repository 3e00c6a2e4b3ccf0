"""Layers of deploy forms beside those of torch."""

import copy
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmwave.models.layers import ChannelMLP, ConvEmbed, LinearMLP
from mmwave.models.layers.deployed import (
    ConstantEmbed,
    ConstantLinear,
    ConstantMLP,
    add_blend,
    linear_activated,
)
from mmwave.ops import chunks
from tests.contracts import images, randomise_norms, relative_error

GELU = dict(type='GELU')
in_both_ways = pytest.mark.parametrize('autograd', [True, False], ids=['autograd', 'in-place'])


def under(autograd):
    return nullcontext() if autograd else torch.no_grad()


@in_both_ways
@pytest.mark.parametrize('bias', [True, False])
def test_constant_linear_equals_linear(bias, autograd):
    torch.manual_seed(0)
    plain = nn.Linear(6, 5, bias=bias).double()
    layer = ConstantLinear.like(plain).double()
    layer.load_state_dict(plain.state_dict())
    x = images(2, 3, 6).double()
    with under(autograd):
        assert relative_error(layer(x), plain(x)) < 1e-14


@torch.no_grad()
def test_constant_linear_sees_new_weights():
    layer, x = ConstantLinear(64, 64), images(4, 64)
    layer(x)
    for change in (lambda w: w.mul_(2), lambda w: w.data.add_(1)):
        change(layer.weight)
        assert relative_error(layer(x), F.linear(x, layer.weight, layer.bias)) < 1e-5


@in_both_ways
@pytest.mark.parametrize('act', [nn.GELU(), nn.GELU('tanh'), nn.ReLU(), nn.PReLU()], ids=repr)
def test_an_activated_product(act, autograd):
    x, weight, bias = images(4, 6), images(5, 6, seed=1), images(5, seed=2)
    with under(autograd):
        wanted = act(F.linear(x, weight, bias))
        assert relative_error(linear_activated(x, weight, bias, act), wanted) < 1e-6
        wanted = act(F.linear(x, weight))
        assert relative_error(linear_activated(x, weight, None, act), wanted) < 1e-6


def mlps(act_cfg=GELU, kind=LinearMLP):
    """An MLP, and its deploy form."""
    torch.manual_seed(0)
    plain = kind(6, 12, 6, act_cfg).double()
    layer = ConstantMLP.like(plain).double()
    state = plain.state_dict().items()
    layer.load_state_dict({k: v.flatten(1) if v.dim() > 1 else v for k, v in state})
    return plain, layer


@in_both_ways
@pytest.mark.parametrize('kind', [LinearMLP, ChannelMLP])
@pytest.mark.parametrize('act', ['GELU', 'PReLU'])
def test_constant_mlp_equals_its_train_form(act, kind, autograd):
    plain, layer = mlps(dict(type=act), kind)
    x = images(2, 3, 4, 6).double()
    with under(autograd):
        given = x if kind is LinearMLP else x.permute(0, 3, 1, 2)
        wanted = plain(given) if kind is LinearMLP else plain(given).permute(0, 2, 3, 1)
        assert relative_error(layer(x), wanted) < 1e-14


@pytest.mark.parametrize('act', ['GELU', 'ReLU'])
def test_an_mlp_is_added_in_place(act, monkeypatch):
    monkeypatch.setattr(chunks, 'CPU_CHUNK', 5)
    plain, layer = mlps(dict(type=act))
    x, normed = images(2, 3, 4, 6).double(), images(2, 3, 4, 6, seed=1).double()
    wanted, kept = x + plain(normed), x.clone()
    assert relative_error(layer.add_to(x, normed), wanted) < 1e-14
    assert torch.equal(x, kept)  # autograd is on
    with torch.no_grad():
        got = layer.add_to(x, normed)
        assert got.data_ptr() == x.data_ptr()
        assert relative_error(got, wanted) < 1e-14
        both = kept.clone()  # of x itself
        assert relative_error(layer.add_to(both, both), kept + plain(kept)) < 1e-14
        # A map with other strides is copied, one of another dtype promoted.
        turned = layer.add_to(kept.transpose(1, 2), normed.transpose(1, 2))
        assert relative_error(turned, wanted.transpose(1, 2)) < 1e-14
        low = kept.float()
        assert layer.add_to(low, normed).dtype == torch.float64
        assert torch.equal(low, kept.float())


@in_both_ways
@pytest.mark.parametrize('count', [1, 3])
def test_a_blend_of_maps_is_added(count, autograd):
    torch.manual_seed(0)
    proj = ConstantLinear(6, 6).double()
    x = images(2, 3, 4, 6).double()
    maps = [images(2, 3, 4, 6, seed=1 + k).double() for k in range(count)]
    factors = [images(2, 1, 1, 6, seed=9 + k).double() for k in range(count)]
    kept = [t.clone() for t in (x, *factors, *maps)]
    wanted = x + proj(sum(m * f for m, f in zip(maps, factors, strict=True)))
    with under(autograd):
        got = add_blend(x, maps, factors, proj)
    assert relative_error(got, wanted) < 1e-14
    # In place of the first map alone, and only where autograd is off.
    spared = (x, *factors, *maps) if autograd else (x, *factors)
    assert all(torch.equal(*pair) for pair in zip(spared, kept, strict=False))


@pytest.mark.parametrize('norm', [nn.BatchNorm2d(4), nn.SyncBatchNorm(4), nn.GroupNorm(1, 4), None])
def test_an_embedding_with_its_norm_folded(norm):
    torch.manual_seed(0)
    sides = dict(kernel_size=3, stride=2, padding=1)
    embed = ConvEmbed(3, 4, **sides, norm=copy.deepcopy(norm), act=nn.PReLU()).double().eval()
    randomise_norms(embed)
    state = ConstantEmbed.fold(embed)
    layer = ConstantEmbed(copy.deepcopy(embed)).double().eval()
    layer.load_state_dict(state)
    assert isinstance(layer.norm, nn.GroupNorm if isinstance(norm, nn.GroupNorm) else nn.Identity)
    x = images(2, 3, 7, 8).double()
    assert relative_error(layer(x), embed(x)) < 1e-14


@pytest.mark.parametrize('mlp', [ChannelMLP(6, 8, 6, GELU), LinearMLP(6, 8, 6, GELU)], ids=repr)
def test_an_mlp_is_folded_with_the_norm_in_front_of_it(mlp):
    norm = nn.LayerNorm(6)
    nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    x = images(4, 6).double()
    for before, scaled in ((None, x), (norm, x * norm.weight.double() + norm.bias.double())):
        folded = ConstantMLP.like(mlp).double()
        folded.load_state_dict(ConstantMLP.fold(mlp.double(), before and before.double()))
        shape = (4, 6, 1, 1) if isinstance(mlp.fc1, nn.Conv2d) else (4, 6)
        assert relative_error(folded(x), mlp(scaled.view(shape)).view(4, 6)) < 1e-13
