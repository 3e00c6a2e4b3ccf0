"""A strided convolution, a norm and an activation."""

import pytest
import torch
from torch import nn

from mmwave.models.layers import ConvEmbed
from tests.contracts import images, relative_error


@pytest.mark.parametrize(
    ('sides', 'shape'),
    [
        (dict(kernel_size=7, stride=4, padding=2), (3, 6)),
        (dict(kernel_size=4, stride=4, padding=0), (2, 6)),
        (dict(kernel_size=3, stride=2, padding=1), (6, 13)),
    ],
)
def test_patches_that_fit_are_embedded(sides, shape):
    torch.manual_seed(0)
    embed = ConvEmbed(3, 5, **sides, norm=nn.GroupNorm(1, 5), act=nn.ReLU())
    x = images(2, 3, 11, 25)
    got = embed(x)
    assert got.shape == (2, 5, *shape)
    wanted = nn.functional.conv2d(
        x, embed.conv.weight, embed.conv.bias, sides['stride'], sides['padding']
    )
    assert relative_error(got, nn.functional.group_norm(wanted, 1).relu()) < 1e-5


def test_norm_bias_and_activation_may_be_missing():
    embed = ConvEmbed(3, 5, kernel_size=2, stride=2, padding=0, norm=None, bias=False)
    assert list(embed.state_dict()) == ['conv.weight']
    x = images(1, 3, 4, 4)
    assert torch.equal(embed(x), embed.conv(x))
