"""Vision Permutator in deploy form: how segments are copied."""

import pytest
import torch

from mmwave.deploy import to_deploy
from mmwave.models.deployed.vip import _swapped
from tests.contracts import images, relative_error
from tests.models.deployed.forms import model, run


# Bytes of a segment: a multiple of eight, of four, and of two alone.
@pytest.mark.parametrize(
    ('length', 'dtype'),
    [
        (3, torch.float64),
        (4, torch.float32),
        (3, torch.float32),
        (2, torch.bfloat16),
        (3, torch.bfloat16),
    ],
)
@pytest.mark.parametrize('axis', [1, 2])
def test_segments_are_exchanged_with_an_axis(axis, length, dtype):
    x = images(2, 3, 4, 5, length).to(dtype)
    wanted = x.transpose(axis, 3).flatten(3)
    # Contiguous, and a view as a map with channels first.
    strided = x.permute(0, 3, 4, 1, 2).contiguous().permute(0, 3, 4, 1, 2)
    for segments in (x, strided):
        for autograd in (False, True):
            with torch.set_grad_enabled(autograd):
                assert torch.equal(_swapped(segments, axis), wanted)


@pytest.mark.parametrize('branch', ['height', 'width', 'channel'])
def test_every_branch_has_a_weight_of_its_own(branch):
    """Weights of the blend are side by side here, and neighbours in train form."""
    made = model('ViP')
    with torch.no_grad():
        for stage in made.stages:
            for block in stage:
                getattr(block.mixer, branch).weight.zero_()
    deployed, _ = to_deploy(made)
    x = images(1, 3, 64, 64).double()
    for got, wanted in zip(run(deployed, x), run(made, x), strict=True):
        assert relative_error(got, wanted) < 1e-13
