"""Constant matrices, packed for oneDNN."""

import copy
import gc

import pytest
import torch
from torch import nn

from mmwave.deploy import to_deploy
from mmwave.models import WaveMLP
from mmwave.ops import linear, use_backend
from mmwave.ops._linear import linear_reference
from mmwave.ops.cache import _states
from mmwave.ops.packed import packed
from tests.contracts import images
from tests.graphs import recorded

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason='torch is built without oneDNN'
)


@pytest.fixture
def weight():
    return nn.Parameter(images(40, 24))


@torch.no_grad()
def assert_as_torch(x, weight, **settings):
    """Assert that the product with a constant weight is torch's, for its current values."""
    with use_backend('onednn'):
        got = linear(x, weight, constant=True, **settings)
    wanted = linear_reference(x.double(), weight.double(), **settings)
    assert (got.double() - wanted).norm() < {torch.float32: 1e-6, torch.bfloat16: 1e-2}[
        x.dtype
    ] * wanted.norm()


def test_packed_once_for_any_number_of_rows(weight):
    first = packed(weight)
    assert first.is_mkldnn
    for rows in (1, 7, 300):
        assert_as_torch(images(rows, 24), weight)
    assert packed(weight) is first


def test_in_bfloat16_and_with_gelu(weight):
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip('this CPU does not support bfloat16')
    half = nn.Parameter(weight.detach().bfloat16())
    assert_as_torch(images(5, 24).bfloat16(), half, gelu='none')
    assert packed(half).dtype == torch.bfloat16


@pytest.mark.parametrize('inference', [False, True])
def test_parts_of_a_parameter(weight, inference):
    x, kernel = images(5, 24), nn.Parameter(images(6, 24, 1, 1))
    with torch.inference_mode(inference):
        # Of one shape: they differ by offset or strides.
        for part in (weight[:20], weight[20:], weight[:24], weight[:24].t()):
            assert_as_torch(x, part)
        assert packed(weight[:20]) is packed(weight[:20])
        assert packed(kernel.flatten(1)) is packed(kernel.flatten(1))


def test_tensors_that_are_no_parameters_are_returned_unchanged(weight):
    plain = weight.detach()
    assert packed(plain) is plain
    with torch.inference_mode():
        without_versions = nn.Parameter(plain.clone())
    assert packed(without_versions) is without_versions


CHANGES = {
    'optimizer': lambda layer: torch.optim.SGD(layer.parameters(), 1.0).step(),
    'in place': lambda layer: layer.weight.detach().mul_(2),
    'in inference mode': lambda layer: torch.inference_mode()(layer.weight.mul_)(2),
    'loaded': lambda layer: layer.load_state_dict({'weight': images(40, 24, seed=9)}),
    'other data': lambda layer: setattr(layer.weight, 'data', images(40, 24, seed=9)),
    'cast and cast back': lambda layer: layer.bfloat16().float(),
}


@pytest.mark.parametrize('change', CHANGES)
@torch.enable_grad()
def test_packed_again_after_the_weight_changed(change):
    layer, x = nn.Linear(24, 40, bias=False), images(5, 24)
    layer.weight.grad = images(40, 24, seed=3)
    assert_as_torch(x, layer.weight)
    before = packed(layer.weight)
    with torch.no_grad():
        CHANGES[change](layer)
    assert packed(layer.weight) is not before
    assert_as_torch(x, layer.weight)


def test_freed_with_its_parameter():
    gc.collect()
    count, weight = len(_states), nn.Parameter(images(40, 24))
    packed(weight)
    assert len(_states) == count + 1
    del weight
    assert len(_states) == count


def test_not_used_with_autograd(weight):
    x = images(5, 24).requires_grad_()
    y = linear(x, weight, constant=True)
    wanted = torch.autograd.grad(linear_reference(x, weight).sum(), (x, weight))
    for a, b in zip(torch.autograd.grad(y.sum(), (x, weight)), wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-5)
    assert id(weight) not in _states


@torch.no_grad()
def test_in_a_graph(weight):
    x = images(5, 24)
    got, nodes = recorded(lambda x, w: linear(x, w, constant=True), x, weight, open_axes=(0,))
    assert 'mmwave.linear' in nodes
    assert torch.equal(got, linear(x, weight, constant=True))


@torch.no_grad()
def test_a_deploy_form_packs_its_matrices_once():
    arch = dict(depths=(1,) * 4, dims=(8, 8, 8, 8), mlp_ratios=(2,) * 4, norm='BN')
    train, x = WaveMLP(arch).eval(), images(1, 3, 32, 32)
    model = to_deploy(train)[0]
    model(x)
    kept = {n: _states[id(p)] for n, p in model.named_parameters() if id(p) in _states}
    matrices = {n for n, p in model.named_parameters() if n.startswith('stages.') and p.dim() == 2}
    assert kept.keys() == matrices
    model(x)
    assert all(_states[id(p)] is kept[n] for n, p in model.named_parameters() if n in kept)
    train(x)
    assert not any(id(p) in _states for p in train.parameters())
    twin = copy.deepcopy(model)
    assert all(torch.equal(a, b) for a, b in zip(twin(x), model(x), strict=True))
