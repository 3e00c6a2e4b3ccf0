"""EAMLP in deploy form: stored positions, merged attentions, forms of single stages."""

import pytest
import torch

from mmwave.deploy import to_deploy
from mmwave.models.deployed import eamlp
from mmwave.models.deployed.eamlp import NUM_POSITIONS, FusedAttention
from mmwave.ops.sinusoids import sinusoids
from tests.contracts import build, images, relative_error
from tests.families import TINY
from tests.models.deployed.forms import model, run


def test_positions_of_images_beyond_the_table():
    made = model('EAMLP')
    deployed, _ = to_deploy(made)
    table = deployed.downsamples[1].table
    assert torch.equal(table, sinusoids(NUM_POSITIONS, TINY['EAMLP']['dim']).double())
    # More tokens, and one fewer than it has.
    for size in ((32, 16 * NUM_POSITIONS), (48, 192 * 16)):
        x = images(1, 3, *size).double()
        for got, wanted in zip(run(deployed, x), run(made, x), strict=True):
            assert relative_error(got, wanted) < 1e-12


@pytest.mark.parametrize('deploy', [False, True])
@pytest.mark.parametrize('out_indices', [(0,), (1,), (0, 2)])
def test_the_form_of_weights_of_the_first_stages_is_recognised(out_indices, deploy):
    arch = TINY['EAMLP']
    state = build('EAMLP', arch, out_indices=out_indices, deploy=deploy).state_dict()
    build('EAMLP', arch, out_indices=out_indices, deploy=deploy).load_state_dict(state)
    other = build('EAMLP', arch, out_indices=out_indices, deploy=not deploy)
    with pytest.raises(ValueError, match=f'weights are in {"deploy" if deploy else "train"} form'):
        other.load_state_dict(state)


def attention():
    torch.manual_seed(0)
    return FusedAttention(6, 2, 5).double()


def test_attention_written_out():
    layer, x = attention(), images(2, 7, 6).double()
    scores = (x @ layer.keys.weight.T).view(2, 7, 2, 5)
    shares = scores.exp() / scores.exp().sum(dim=1, keepdim=True)  # over the tokens
    shares = shares / (shares.sum(dim=3, keepdim=True) + 1e-9)  # over the units
    wanted = shares.flatten(2) @ layer.values.weight.T + layer.values.bias
    for autograd in (False, True):
        with torch.set_grad_enabled(autograd):
            assert relative_error(layer(x), wanted) < 1e-14


@pytest.mark.parametrize('chunk', [1, 7, 20])
def test_attention_maps_some_images_at_a_time(chunk, monkeypatch):
    layer, x = attention(), images(5, 7, 6).double()
    wanted = run(layer, x)
    parts = []
    layer.values.register_forward_hook(lambda _, given, out: parts.append(len(given[0]) // 7))
    monkeypatch.setattr(eamlp, 'CPU_CHUNK', chunk)
    assert relative_error(run(layer, x), wanted) < 1e-14
    assert parts == {1: [1] * 5, 7: [1] * 5, 20: [2, 2, 1]}[chunk]


def test_attention_of_many_tokens_in_half_precision():
    """Normalised in float32: shares of one token among many are below what float16 resolves."""
    layer, x = attention(), 8 * images(1, 4096, 6).double()
    wanted = run(layer, x)
    got = run(layer.half(), x.half())
    assert got.dtype == torch.float16
    assert relative_error(got.double(), wanted) < 0.005
