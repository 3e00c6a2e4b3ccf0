"""The published structure computes what our RepMLPNet computes, forwards and backwards."""

import pytest
import torch
from torch import nn

from mmwave.analysis.peers.repmlpnet import PublishedDeploy, PublishedTrain
from mmwave.models import RepMLPNet
from tests.contracts import images, randomise_norms, relative_error, total

HALVED = ((8, 16), (4, 8), (2, 4), (1, 2))
# Windows that do not halve: so many of them, by height and width, on the smallest image they fill.
FREE = {(6, 4): (4, 4), (3, 4): (4, 2), (3, 2): (2, 2), (1, 2): (3, 1)}
CASES = [
    pytest.param(HALVED, (32, 64), id='one window'),
    pytest.param(HALVED, (64, 192), id='six windows'),
    pytest.param(tuple(FREE), (96, 64), id='other windows'),
]
PEERS = (PublishedTrain, PublishedDeploy)


def small(windows=HALVED, kernels=(1, 3), **options) -> RepMLPNet:
    """A tiny RepMLPNet in eval mode and float64, its norms far from the identity."""
    torch.manual_seed(0)
    arch = dict(
        depths=(1, 2, 1, 1),
        dims=(8, 8, 16, 16),
        windows=windows,
        share_sets=(1, 2, 4, 16),
        kernels=kernels,
    )
    model = RepMLPNet(arch, **options).double()
    randomise_norms(model)
    return model.eval()


def batch(size, channels=3):
    return images(2, channels, *size).double()


@pytest.mark.parametrize('peer', PEERS)
@pytest.mark.parametrize('kernels', [(), (1, 3), (3, 5)])
@pytest.mark.parametrize(('windows', 'size'), CASES)
@torch.no_grad()
def test_outputs_equal_ours(peer, windows, size, kernels):
    model, x = small(windows, kernels), batch(size)
    for theirs, ours in zip(peer(model)(x), model(x), strict=True):
        assert theirs.shape == ours.shape
        assert relative_error(theirs, ours) < 3e-15


@pytest.mark.parametrize('peer', PEERS)
@torch.no_grad()
def test_settings_of_the_model_are_taken_over(peer):
    options = dict(in_channels=5, out_indices=(0, 2), act_cfg=dict(type='GELU', approximate='tanh'))
    model, x = small(**options), batch((32, 64), channels=5)
    published = peer(model)
    theirs, ours = published(x), model(x)
    assert [relative_error(a, b) < 3e-15 for a, b in zip(theirs, ours, strict=True)] == [True] * 2
    half = peer(model.float().bfloat16())
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(('windows', 'size'), CASES)
def test_gradients_and_statistics_equal_ours(windows, size):
    model, x = small(windows).train(), batch(size)
    peer = PublishedTrain(model)
    assert peer.training
    total(model(x)).backward()
    total(peer(x)).backward()
    theirs = dict(peer.named_parameters())
    assert theirs.keys() == dict(model.named_parameters()).keys()
    # Some vanish: a norm does not see the scale of a 1 x 1 kernel in front of it.
    largest = max(p.grad.abs().max() for p in model.parameters())
    for name, parameter in model.named_parameters():
        error = theirs[name].grad.reshape(parameter.shape) - parameter.grad
        assert error.abs().max() < 1e-13 * largest, name
    buffers = dict(peer.named_buffers())
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffers[name], buffer, rtol=1e-13, atol=1e-13)


def test_it_is_the_published_structure():
    model = small()
    train, deploy = (peer(model) for peer in PEERS)
    for peer in (train, deploy):
        for module in peer.modules():
            assert not isinstance(module, nn.Linear)
    for peer, branches in ((train, 2), (deploy, 0)):
        for block in peer.blocks().values():
            matrices = block.channel_perceptron
            assert isinstance(matrices, nn.Conv2d)
            positions = block.window[0] * block.window[1]
            assert matrices.weight.shape == (block.sets * positions, positions, 1, 1)
            assert (matrices.bias is None) == (peer is train)
            assert len(block.local_perceptron) == branches
            assert isinstance(block.norm1, nn.BatchNorm2d)
            assert isinstance(block.norm2, nn.BatchNorm2d)
    # By hand: stem, 3 downsamples, 4 output norms, 4 a block in 5 blocks.
    norms = 1 + 3 + 4 + 4 * 5
    count = [sum(isinstance(m, nn.BatchNorm2d) for m in peer.modules()) for peer in (deploy, train)]
    assert count == [norms, norms + 3 * 5]


@pytest.mark.parametrize('peer', PEERS)
def test_the_model_is_left_alone(peer):
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    published = peer(model)
    with torch.no_grad():
        for tensor in published.state_dict().values():
            tensor.fill_(7)
    for name, tensor in model.state_dict().items():
        assert tensor.equal(before[name]), name


@pytest.mark.parametrize('peer', PEERS)
def test_images_that_windows_do_not_fill_are_refused(peer):
    model = small(tuple(FREE))
    height, width = model.arch.filled_sizes().divisors
    assert [(height // (4 << i) // h, width // (4 << i) // w) for i, (h, w) in enumerate(FREE)] == [
        *FREE.values()
    ]
    with pytest.raises(ValueError, match=rf'multiple of {height}, the width of {width}'):
        peer(model)(batch((height, width - 32)))
