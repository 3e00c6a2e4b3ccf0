"""gMLP: its gate, where training starts and the fields of its archs."""

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F

from mmwave.models.backbones.gmlp import ARCHS, GMLPArch, SpatialGate
from mmwave.models.layers.token_grid import ResizedTokens
from tests.contracts import build, images, relative_error
from tests.families import TINY


def test_gate_written_out():
    torch.manual_seed(0)
    gate = SpatialGate(5, 12, 1e-5).double()
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter)
    x, half = images(2, 3, 4, 5).double(), images(2, 3, 4, 5, seed=1).double()
    normed = F.layer_norm(half, (5,), gate.norm.weight, gate.norm.bias, eps=1e-5)
    mixed = torch.einsum('qp,npc->nqc', gate.proj.weight, normed.flatten(1, 2))
    mixed = mixed + gate.proj.bias[:, None]
    got = gate(x, half, ResizedTokens.of((3, 4), (3, 4), like=x))
    assert relative_error(got, x * mixed.view_as(x)) < 1e-14


def test_the_last_half_of_the_channels_gates_the_first():
    block = build('GMLP', TINY['GMLP']).stages[0][0].double()
    seen = []
    block.gate.register_forward_pre_hook(lambda _, given: seen.extend(given[:2]))
    x = images(1, 4, 4, 8).double()
    block(x, ResizedTokens.of((4, 4), (4, 4), like=x))
    hidden = F.gelu(block.fc1(block.norm(x)))
    for got, wanted in zip(seen, hidden.chunk(2, dim=3), strict=True):
        assert relative_error(got, wanted) < 1e-14


def test_gates_of_gmlp_start_as_one():
    block = build('GMLP', TINY['GMLP']).stages[0][0]
    assert (block.gate.proj.bias == 1).all()
    assert 0 < block.gate.proj.weight.abs().max() < 1e-5
    with pytest.raises(ValueError, match='gate_norm_eps=0 must be above 0'):
        build('GMLP', TINY['GMLP'], gate_norm_eps=0)


def test_arch_as_a_dict_and_its_checks():
    fields = TINY['GMLP']
    assert build('GMLP', fields).arch == GMLPArch(**fields)
    assert GMLPArch(**asdict(ARCHS['s16'])) == ARCHS['s16']
    assert [sum(arch.depths) for arch in ARCHS.values()] == [30] * 3
    for change, message in (
        (dict(grid=(4, 0)), r'grid=\(4, 0\) must be one or two positive whole numbers'),
        (dict(depths=(1, 0)), r'depths=\(1, 0\) must be 4 whole numbers'),
        (dict(dim=0), 'dim=0 must be a positive whole number'),
        (dict(mlp_ratio=0.5), r'mlp_ratio=0\.5 must be a positive whole number'),
        (dict(dim=3, mlp_ratio=3), 'dim=3 times mlp_ratio=3 must be even'),
    ):
        with pytest.raises(ValueError, match=message):
            build('GMLP', fields | change)
