"""Archs drawn at random, with a fixed seed: what must hold for whatever a family allows."""

import random

import pytest
import torch

from mmwave.deploy import to_deploy
from tests.contracts import build, images, randomise_norms
from tests.families import FAMILIES, drawn
from tests.models.backbones.test_derivatives import penalty_gradients, pulled, worst

DRAWS = 12
CASES = [
    pytest.param(name, seed, marks=[] if seed < 1 else pytest.mark.slow)
    for name, family in FAMILIES.items()
    if family.drawn
    for seed in range(DRAWS)
]
# Measured in float64 over 400 archs: 1e-13 at most.
EXACT = 1e-11


def gradients(model, x):
    torch.manual_seed(0)  # of drop path
    x = x.clone().requires_grad_()
    pulled(model(x)).backward()
    found = [x.grad, *(p.grad for p in model.parameters())]
    for parameter in model.parameters():
        parameter.grad = None
    return found


@pytest.mark.parametrize(('name', 'seed'), CASES)
def test_what_holds_for_any_arch(name, seed):
    draw = random.Random(f'{name} {seed}')
    arch, options = drawn(name, draw)
    act = dict(act_cfg=draw.choice([None, dict(type='PReLU'), dict(type='ReLU', inplace=True)]))
    size = draw.randint(32, 90), draw.randint(32, 90)
    x = images(draw.randint(1, 3), 3, *size).double()
    rates = dict(drop_path_rate=draw.choice((0.0, 0.3)))
    model = build(name, arch, **options, **act, **rates)
    randomise_norms(model)
    model = model.double().eval()

    kept = x.clone()
    with torch.no_grad():
        wanted = model(x)
        rows = [model(image[None]) for image in x]
        deployed = to_deploy(model)[0]
        folded = deployed(x)
        none = deployed(x[:0])
    for k, level in enumerate(wanted):
        assert (folded[k] - level).abs().max() < EXACT * (1 + level.abs().max())
        assert (torch.cat([row[k] for row in rows]) - level).abs().max() < EXACT * (
            1 + level.abs().max()
        )
        assert none[k].shape == (0, *level.shape[1:])
    assert torch.equal(x, kept)

    plain = build(name, arch, **options, **act, **rates, lean=False).double()
    for training in (True, False):
        plain.load_state_dict(model.state_dict())
        plain.train(training)
        exact = gradients(plain, x)
        by_row = [gradients(plain, image[None]) for image in x] if not training else []
        if by_row:  # an image's gradient is its own, a parameter's the sum of all
            assert worst([torch.cat([row[0] for row in by_row])], exact[:1]) < EXACT
            summed = [sum(each) for each in zip(*(row[1:] for row in by_row), strict=True)]
            assert worst(summed, exact[1:]) < EXACT
        statistics = plain.state_dict()
        for settings in (dict(), dict(with_cp=True)):
            other = build(name, arch, **options, **act, **rates, **settings).double()
            other.load_state_dict(model.state_dict())
            found = gradients(other.train(training), x)
            assert all(torch.equal(a, b) for a, b in zip(found, exact, strict=True))
            state = other.state_dict()
            assert not training or all(torch.equal(v, state[k]) for k, v in statistics.items())
    if not rates['drop_path_rate']:
        other = build(name, arch, **options, **act).double()
        other.load_state_dict(plain.state_dict())
        for found, exact in zip(
            *(penalty_gradients(m.eval(), x) for m in (other, plain)), strict=True
        ):
            assert worst(found, exact) < EXACT
