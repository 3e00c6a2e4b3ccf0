"""Deploy forms that tests compare with their train forms, and how."""

import pytest
import torch

from mmwave.models.deployed import find_deployed_family
from tests.contracts import build, randomise_norms, registered
from tests.families import FAMILIES

NAMES = [name for name, cls in registered().items() if find_deployed_family(cls)]
# Two blocks in a row, and of the plain families a stage without blocks.
DEPTHS = {
    name: (1, 2, 0, 1) if 0 in FAMILIES[name].tiny['depths'] else (1, 1, 1, 2) for name in NAMES
}
# Whole windows of most, windows filled up, odd sides.
SIZES = ((64, 96), (33, 47), (45, 100))


def grid_modes(name):
    """Grid modes of a family: those for any size, then ``'strict'``; None where it has none."""
    modes = FAMILIES[name].grid_modes
    return (*modes, 'strict') if modes else (None,)


def forms():
    """A family's tiny arch in every grid mode, and its variants in the first."""
    params = []
    for name in NAMES:
        cases = [('tiny', mode) for mode in grid_modes(name)]
        cases += [(variant, grid_modes(name)[0]) for variant in FAMILIES[name].variants]
        for variant, mode in cases:
            label = '-'.join(filter(None, (name, variant, mode)))
            params.append(pytest.param(name, variant, mode, id=label))
    return pytest.mark.parametrize(('name', 'variant', 'grid_mode'), params)


def arch_of(name, variant='tiny'):
    family = FAMILIES[name]
    return {**family.tiny, 'depths': DEPTHS[name], **family.variants.get(variant, {})}


def model(name, variant='tiny', grid_mode=None, **options):
    """A model in float64 and eval mode, all of whose parameters matter."""
    options |= {} if grid_mode is None else dict(grid_mode=grid_mode)
    made = build(name, arch_of(name, variant), **options)
    randomise_norms(made)
    # Batch norms in eval mode do not keep values small: with more noise they are ill-conditioned.
    noise = 0.05 if FAMILIES[name].has_batch_norms else 0.2
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(noise * torch.randn(parameter.shape))
    return made.double().eval()


def trained_size(name, variant='tiny'):
    """The smallest images that windows fill."""
    if not FAMILIES[name].grid_modes:
        return 64, 48
    accepted = build(name, arch_of(name, variant), grid_mode='strict').size_constraint
    return accepted.only or accepted.divisors


def run(form, x):
    with torch.no_grad():
        return form(x)


def assert_equal(got, wanted):
    """Elementwise. Measured: a thirtieth of the bound at most."""
    for a, b in zip(got, wanted, strict=True):
        assert ((a - b).abs() <= 1e-11 * b.abs() + 1e-14 * b.abs().max()).all()


def distance(got, wanted):
    return ((got.double() - wanted).norm() / wanted.norm()).item()
