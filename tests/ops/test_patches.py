"""Patches against torch's own ``unfold`` of maps with channels first."""

import pytest
import torch
import torch.nn.functional as F

from mmwave.ops._patches import patches
from tests.contracts import images, relative_error
from tests.graphs import check_op, recorded

# Side, stride, padding: those of EAMLP's stem and downsamples; one without overlap.
CASES = [(7, 4, 2), (3, 2, 1), (2, 2, 0)]
SIZES = [(13, 18), (16, 9), (7, 7)]
OPS = torch.ops.mmwave


def by_unfold(x, side, stride, padding, channels_last):
    values = F.unfold(x.permute(0, 3, 1, 2), side, padding=padding, stride=stride)
    if channels_last:
        values = values.unflatten(1, (-1, side * side)).transpose(1, 2).flatten(1, 2)
    height = (x.shape[1] + 2 * padding - side) // stride + 1
    return values.unflatten(2, (height, -1)).permute(0, 2, 3, 1)


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('size', SIZES)
def test_equal_to_unfold(size, case, channels_last):
    x = images(2, *size, 3)
    assert torch.equal(
        patches(x, *case, channels_last=channels_last), by_unfold(x, *case, channels_last)
    )


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('size', SIZES)
def test_one_custom_op_in_a_graph_with_dynamic_sizes(size, case, channels_last):
    x = images(2, *size, 3).double().requires_grad_()

    def run(x):
        return patches(x, *case, channels_last=channels_last)

    wanted = run(x)
    got, nodes = recorded(run, x.detach().requires_grad_(), open_axes=(1, 2))
    assert 'mmwave.patches' in nodes
    assert torch.equal(got, wanted)
    _, nodes = recorded(run, x.detach())
    assert 'mmwave.patches' not in nodes
    pull = images(*wanted.shape, seed=1).double()
    gradients = [
        torch.autograd.grad(y, x, pull)[0] for y in (wanted, OPS.patches(x, *case, channels_last))
    ]
    assert relative_error(*gradients) < 1e-14


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('size', SIZES)
def test_custom_ops_are_registered_correctly(size, case, channels_last):
    x = images(2, *size, 3).requires_grad_()
    check_op(OPS.patches.default, x, *case, channels_last)
    gradient = OPS.patches(x, *case, channels_last).detach()
    check_op(OPS.patches_backward.default, gradient, *size, *case, channels_last)
