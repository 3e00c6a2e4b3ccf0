"""ResMLP: its block, where training starts and the fields of its archs."""

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F

from mmwave.models.backbones.resmlp import ARCHS, ResMLPArch
from mmwave.models.layers.token_grid import ResizedTokens
from tests.contracts import build, images, relative_error
from tests.families import TINY


def test_block_written_out():
    torch.manual_seed(0)
    block = build('ResMLP', TINY['ResMLP']).stages[0][0].double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    given = images(2, 4, 4, 8).double()
    x, mlp = given.flatten(1, 2), block.mlp
    normed = x * block.norm1.weight + block.norm1.bias
    mixed = torch.einsum('qp,npc->nqc', block.tokens.weight, normed) + block.tokens.bias[:, None]
    x = x + block.scale1 * mixed
    normed = x * block.norm2.weight + block.norm2.bias
    hidden = F.gelu(F.linear(normed, mlp.fc1.weight, mlp.fc1.bias))
    x = x + block.scale2 * F.linear(hidden, mlp.fc2.weight, mlp.fc2.bias)
    got = block(given, ResizedTokens.of((4, 4), (4, 4), like=given))
    assert relative_error(got.flatten(1, 2), x) < 1e-14


def test_sizes_that_are_no_part_of_what_is_trained():
    a, b = (
        build('ResMLP', TINY['ResMLP'] | dict(scale_init=s), out_indices=(3,)) for s in (0.1, 1e-6)
    )
    assert a.arch == b.arch
    assert a.stages[0][0].scale1[0].item() == pytest.approx(0.1)
    assert b.stages[0][0].scale2[0].item() == pytest.approx(1e-6)


def test_arch_as_a_dict_and_its_checks():
    fields = TINY['ResMLP']
    assert build('ResMLP', fields).arch == ResMLPArch(**fields)
    assert ResMLPArch(**asdict(ARCHS['b24'])) == ARCHS['b24']
    for change, message in (
        (dict(depths=(1, 0)), r'depths=\(1, 0\) must be 4 whole numbers'),
        (dict(depths=12), 'depths=12 must be 4 whole numbers'),
        (dict(grid=()), r'grid=\(\) must be one or two positive whole numbers'),
        (dict(patch_size=-1), 'patch_size=-1 must be a positive whole number'),
    ):
        with pytest.raises(ValueError, match=message):
            build('ResMLP', fields | change)
