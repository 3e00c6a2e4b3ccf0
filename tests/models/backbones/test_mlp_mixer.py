"""MLP-Mixer: its block, where training starts and the fields of its archs."""

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F

from mmwave.models.backbones.mlp_mixer import ARCHS, MLPMixerArch
from mmwave.models.layers.token_grid import ResizedTokens
from tests.contracts import build, images, relative_error
from tests.families import TINY


def test_block_written_out():
    block = build('MLPMixer', TINY['MLPMixer'], norm_eps=1e-3).stages[0][0].double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))

    def mlp(x, part):
        hidden = F.gelu(F.linear(x, part.fc1.weight, part.fc1.bias))
        return F.linear(hidden, part.fc2.weight, part.fc2.bias)

    def norm(x, part):
        return F.layer_norm(x, (8,), part.weight, part.bias, eps=1e-3)

    given = images(2, 4, 4, 8).double()
    x = given.flatten(1, 2)
    x = x + mlp(norm(x, block.norm1).transpose(1, 2), block.token_mlp).transpose(1, 2)
    x = x + mlp(norm(x, block.norm2), block.channel_mlp)
    got = block(given, ResizedTokens.of((4, 4), (4, 4), like=given))
    assert relative_error(got.flatten(1, 2), x) < 1e-14


def test_layers_start_with_a_variance_of_one_over_their_inputs():
    block = build('MLPMixer', 's16').stages[0][0]
    layers = [m for m in block.modules() if isinstance(m, torch.nn.Linear)]
    assert len(layers) == 4
    for layer in layers:
        assert layer.weight.std().item() == pytest.approx(layer.in_features**-0.5, rel=0.02)
        assert not layer.bias.any()


def test_arch_as_a_dict_and_its_checks():
    fields = TINY['MLPMixer']
    assert build('MLPMixer', fields).arch == MLPMixerArch(**fields)
    assert MLPMixerArch(**asdict(ARCHS['s16'])) == ARCHS['s16']
    assert [sum(arch.depths) for arch in ARCHS.values()] == [8, 12, 24]
    for change, message in (
        (dict(depths=(0,) * 4), r'depths=.* not all zero'),
        (dict(grid=4.0), r'grid=4\.0 must be one or two positive whole numbers'),
        (dict(token_mlp_dim=0.5), r'token_mlp_dim=0\.5 must be a positive whole'),
        (dict(channel_mlp_dim=0), 'channel_mlp_dim=0 must be a positive whole'),
    ):
        with pytest.raises(ValueError, match=message):
            build('MLPMixer', fields | change)
