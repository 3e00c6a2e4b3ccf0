"""The peers compute what our train forms compute, forwards and backwards, the published way."""

import re
import sys
from collections import Counter
from collections.abc import Sequence
from importlib.machinery import PathFinder
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmwave.errors import UserError
from mmwave.inspect.memory import saved_bytes
from mmwave.models import MLPBackbone, RepMLPNet
from mmwave.structures import SizeConstraint
from speed import peers
from speed.cases import families
from speed.peers import CONTENDERS, PEERS, libraries
from speed.peers.libraries import Library
from speed.peers.repmlpnet import PublishedDeploy, PublishedTrain
from tests.contracts import compiled, images, randomise_norms, relative_error, total
from tests.families import SMALLEST

TANH = dict(type='GELU', approximate='tanh')
WAVEMLP = dict(depths=(1, 2, 1, 1), dims=(8, 16, 24, 32))
ASMLP = dict(depths=(1, 2, 1, 1), dims=(8, 16, 24, 32), mlp_ratio=2)
HIREMLP = dict(depths=(2, 1, 2, 1), dims=(8, 16, 24, 32))
POSMLP = dict(
    depths=(1, 2, 1, 1),
    dims=(4, 8, 16, 32),
    mlp_ratios=(4, 2, 2, 2),
    windows=((4, 8), 4, (2, 4), 2),
    groups=(2, 4, 4, 8),
)
VIP = dict(
    depths=(1, 2, 1, 1),
    dims=(32, 32, 64, 64),
    patch_size=4,
    grids=((8, 16), (8, 16), (4, 8), (4, 8)),
)
EAMLP = dict(depths=(1, 1, 2, 1), dim=16, heads=2, mlp_ratio=2, token_dim=8)
ACTIVEMLP = dict(depths=(1, 1, 3, 1), dims=(8, 16, 24, 32), mlp_ratios=(2, 2, 1, 2), interval=1)
PLAIN = dict(depths=(1, 0, 2, 1), dim=16, patch_size=8, grid=(4, 6))
GMLP = PLAIN | dict(mlp_ratio=3)
RESMLP = PLAIN | dict(scale_init=0.5)
MLP_MIXER = PLAIN | dict(token_mlp_dim=8, channel_mlp_dim=24)
HALVED = ((8, 16), (4, 8), (2, 4), (1, 2))
REPMLPNET = dict(depths=(1, 2, 1, 1), dims=(8, 8, 16, 16), windows=HALVED, share_sets=(1, 2, 4, 16))
CYCLEMLP = dict(depths=(1, 2, 1, 1), dims=(8, 16, 24, 32))
ARCHS: dict[str, dict[str, Any]] = {
    'wavemlp': WAVEMLP,
    'hiremlp': HIREMLP,
    'repmlpnet': REPMLPNET,
    'posmlp': POSMLP,
    'vip': VIP,
    'eamlp': EAMLP,
    'gmlp': GMLP,
    'resmlp': RESMLP,
    'mlp_mixer': MLP_MIXER,
    'cyclemlp': CYCLEMLP,
    'asmlp': ASMLP,
    'activemlp': ACTIVEMLP,
}
SIZES = {
    'wavemlp': (64, 96),
    'hiremlp': (64, 96),
    'repmlpnet': (32, 64),
    'posmlp': (64, 128),
    'vip': (32, 64),
    'eamlp': (224, 224),
    'gmlp': (32, 48),
    'resmlp': (32, 48),
    'mlp_mixer': (32, 48),
    'cyclemlp': (64, 96),
    'asmlp': (64, 96),
    'activemlp': (64, 96),
}
CASES = [
    *((family, {}, {}, SIZES[family]) for family in SIZES),
    ('wavemlp', dict(norm='BN'), {}, (61, 45)),
    ('wavemlp', dict(norm='BN', phase='dw'), {}, (64, 96)),
    ('wavemlp', dict(stem_norm=False, phase='dw', mlp_ratios=(8, 8, 4, 4)), {}, (61, 45)),
    ('hiremlp', {}, dict(act_cfg=TANH, shift_direction='backward'), (61, 45)),
    ('posmlp', {}, dict(act_cfg=TANH), (128, 64)),
    ('vip', dict(grids=((8, 16),) * 4, dims=(32,) * 4), dict(act_cfg=TANH), (32, 64)),
    ('eamlp', {}, dict(act_cfg=TANH), (224, 224)),
    ('gmlp', {}, dict(act_cfg=TANH, gate_norm_eps=1e-2), (32, 48)),
    ('resmlp', {}, dict(act_cfg=TANH), (32, 48)),
    ('mlp_mixer', {}, dict(act_cfg=TANH, norm_eps=1e-2), (32, 48)),
    ('repmlpnet', {}, dict(act_cfg=TANH), (32, 64)),
    ('cyclemlp', dict(mlp_ratios=(8, 8, 4, 4)), dict(act_cfg=TANH), (61, 45)),
    ('asmlp', {}, dict(act_cfg=TANH, shift_size=3), (61, 45)),
    ('activemlp', dict(interval=2, shares=(1, 2, 2, 4)), dict(act_cfg=TANH), (61, 45)),
]
OTHERS = [(family, name) for family, peer in PEERS.items() for name in peer.others]
ANY_LEVELS = tuple(f for f, peer in PEERS.items() if peer.out_indices == (0, 1, 2, 3))
"""Families whose peers have every level that they are asked for."""


def tiny(family: str, **options: Any) -> MLPBackbone:
    """A tiny model in eval mode and float64, none of its parameters at a special value."""
    torch.manual_seed(0)
    peer = PEERS[family]
    arch = ARCHS[family] | options.pop('arch', {})
    model = peer.backbone(arch, **{'out_indices': peer.out_indices} | peer.settings | options)
    randomise_norms(model.double())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def batch(size: tuple[int, int], channels: int = 3) -> Tensor:
    # Norms over fewer positions blow up rounding.
    return images(4, channels, *size).double()


@torch.no_grad()
def check_outputs(module: nn.Module, model: nn.Module, x: Tensor, levels: Sequence[int]) -> None:
    """Every output of ``module`` is that of ``model`` at the level."""
    wanted = model(x)
    for got, level in zip(module(x), levels, strict=True):
        assert got.shape == wanted[level].shape
        assert relative_error(got, wanted[level]) < 3e-15


def check_step(module: nn.Module, model: nn.Module, x: Tensor, levels: Sequence[int]) -> None:
    """Gradients of all parameters, by name, and batch norms' statistics are those of ``model``."""
    outputs = model(x)
    total(tuple(outputs[level] for level in levels)).backward()
    total(module(x)).backward()
    theirs = dict(module.named_parameters())
    ours = {name: p for name, p in model.named_parameters() if p.grad is not None}
    assert theirs.keys() == ours.keys()
    # Some vanish: a softmax does not see what all have in common.
    largest = max(p.grad.abs().max() for p in ours.values())
    for name, parameter in ours.items():
        error = theirs[name].grad.reshape(parameter.shape) - parameter.grad
        assert error.abs().max() < 2e-14 * largest, name
    buffers = dict(model.named_buffers())
    found = {name: b for name, b in _buffers(module).items() if name in buffers}
    unseen = tuple(f'out_norms.{i}.' for i in range(4) if i not in levels)
    assert found.keys() == {name for name in buffers if not name.startswith(unseen)}
    for name, buffer in found.items():
        torch.testing.assert_close(buffer, buffers[name], rtol=1e-14, atol=1e-14)


def _buffers(module: nn.Module) -> dict[str, Tensor]:
    """By our names."""
    if not isinstance(module, Library):
        return dict(module.named_buffers())
    return {module.ours[name]: b for name, b in module.network.named_buffers()}


@pytest.mark.parametrize(('family', 'arch', 'settings', 'size'), CASES)
def test_outputs_equal_ours_everywhere(family, arch, settings, size):
    peer, model = PEERS[family], tiny(family, arch=arch, **settings)
    assert peer.sizes(model.arch).check(*size) is None
    check_outputs(peer.inference(model), model, batch(size), range(len(peer.out_indices)))


@pytest.mark.parametrize(('family', 'arch', 'settings', 'size'), CASES)
def test_a_training_step_equals_ours_everywhere(family, arch, settings, size):
    peer, model = PEERS[family], tiny(family, arch=arch, **settings).train()
    module = peer.training(model)
    assert module.training
    check_step(module, model, batch(size), range(len(peer.out_indices)))


@pytest.mark.parametrize(('family', 'name'), OTHERS)
@pytest.mark.parametrize('settings', [{}, dict(act_cfg=TANH)])
def test_other_libraries_equal_ours_at_their_levels(family, name, settings):
    levels, build = PEERS[family].others[name]
    model, x = tiny(family, **settings), batch(SIZES[family])
    check_outputs(build(model), model, x, levels)
    model.train()
    check_step(build(model), model, x, levels)


@pytest.mark.parametrize('family', ANY_LEVELS)
def test_channels_levels_and_dtype_are_those_of_the_model(family):
    peer, model = PEERS[family], tiny(family, in_channels=5, out_indices=(0, 2))
    check_outputs(peer.inference(model), model, batch(SIZES[family], channels=5), (0, 1))
    half = peer.inference(model.float().bfloat16())
    assert {t.dtype for t in (*half.parameters(), *half.buffers()) if t.is_floating_point()} == {
        torch.bfloat16
    }


@pytest.mark.parametrize('family', ['gmlp', 'resmlp', 'mlp_mixer'])
def test_channels_and_dtype_of_libraries_are_those_of_the_model(family):
    peer, model = PEERS[family], tiny(family, in_channels=5)
    for build in (peer.inference, *(other.build for other in peer.others.values())):
        check_outputs(build(model), model, batch(SIZES[family], channels=5), (0,))
        assert {p.dtype for p in build(tiny(family).bfloat16()).parameters()} == {torch.bfloat16}


@pytest.mark.parametrize('family', PEERS)
def test_no_peer_changes_the_model(family):
    peer, model = PEERS[family], tiny(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    others = [other.build for other in peer.others.values()]
    for build in (peer.inference, peer.training, *others):
        with torch.no_grad():
            for tensor in build(model).state_dict().values():
                tensor.fill_(7)
    for name, tensor in model.state_dict().items():
        assert tensor.equal(before[name]), name


@pytest.mark.parametrize('family', PEERS)
def test_images_of_another_size_are_refused(family):
    peer, model = PEERS[family], tiny(family)
    height, width = SIZES[family]
    if peer.sizes(model.arch) == SizeConstraint():
        assert peer.inference(model)(batch((height, width + 32 // 2)))
        return
    for build in (peer.inference, peer.training, *(o.build for o in peer.others.values())):
        module = build(model)
        with pytest.raises(ValueError, match=r'does not fit: '):
            module(batch((height, width + 32 // 2)))
        assert module.sizes.check(height, width) is None


@pytest.mark.parametrize('family', PEERS)
@torch.no_grad()
def test_peers_compile_to_one_graph(family):
    peer, model, x = PEERS[family], tiny(family), batch(SIZES[family])
    for build in (peer.inference, peer.training, *(o.build for o in peer.others.values())):
        module = build(model)
        graph = compiled(module, fullgraph=True, dynamic=False)
        for got, wanted in zip(graph(x), module(x), strict=True):
            assert got.equal(wanted)


@pytest.mark.parametrize(
    ('family', 'counts'),
    [
        # By hand, of four blocks and 4 embeds: 6 projections of a block's input, 2 mixings, 2 of
        # the blend, the output's, 2 of the MLP; two norms a block are of its phases.
        (
            'wavemlp',
            dict(
                convolution=4 + 4 * 12,
                cat=4 * 2,
                cos=4 * 2,
                sin=4 * 2,
                native_group_norm=4 + 4 * 2 + 4,
                native_batch_norm=4 * 2,
                permute=4,
                _softmax=4,
            ),
        ),
        # Two MLPs of regions, two layers each, one of channels, 2 of the blend, the output's, 2 of
        # the MLP; regions are permuted to and back.
        (
            'hiremlp',
            dict(
                convolution=4 + 4 * 10,
                native_batch_norm=4 + 4 * 4 + 4,
                relu=4 * 2,
                permute=4 * 4 + 4,
                _softmax=4,
            ),
        ),
        # Of a kernel: the inverse of its covariance, the forms of all offsets; then the mixing.
        # Copies: a map is cut and joined once a stage, the halves are regrouped for the mixing.
        (
            'posmlp',
            dict(bmm=4 * 3, _softmax=4, addmm=4 * 2, native_layer_norm=4 + 3 + 1, stack=4),
        ),
        # Each of two branches copies the map to segments and back.
        (
            'vip',
            dict(clone=4 * 4, mm=4 * 3, addmm=4 * 5, native_layer_norm=4 * 2 + 1, _softmax=4),
        ),
        # Of a block: its map is padded once, cut into 4 or 5 groups and joined, for each axis.
        (
            'asmlp',
            dict(
                convolution=4 + 4 * 6,
                constant_pad_nd=4,
                roll=2 * (4 + 4 + 5 + 5),
                cat=3 + 4 * 2,
                gelu=4 * 4,
                native_group_norm=4 + 4 * 4 + 4,
            ),
        ),
        # Two token attentions and two blocks, which alone have heads in front of the tokens.
        (
            'eamlp',
            dict(im2col=3, cat=1, _softmax=4, div=4, sum=4, native_layer_norm=2 * 2 + 2 * 2 + 1),
        ),
        # A Cycle FC is one operator, whose output has the channels first in memory: so has what is
        # projected, for which a linear layer with bias is a product and a sum.
        (
            'cyclemlp',
            {
                'torchvision.deform_conv2d': 4 * 2,
                'convolution': 4,
                'mm': 4 * 2,
                'addmm': 4 * 4,
                'native_layer_norm': 4 * 2 + 4,
                '_softmax': 4,
            },
        ),
        # Four embeds, a position convolution a block; two deformable convolutions and three norms.
        (
            'activemlp',
            {
                'convolution': 4 + 4,
                'torchvision.deform_conv2d': 4 * 2,
                'native_layer_norm': 4 * 3 + 4,
                '_softmax': 4,
            },
        ),
    ],
)
@torch.no_grad()
def test_the_operations_are_the_published_ones(family, counts):
    depths = (1, 1, 1, 1)
    peer, model = PEERS[family], tiny(family, arch=dict(depths=depths))
    module, x = peer.inference(model), batch(SIZES[family])
    with Operations() as operations:
        module(x)
    assert {name: operations.calls[name] for name in counts} == counts


class Operations(TorchDispatchMode):
    """Inside, counts calls of torch's operators by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        self.calls[str(operator.overloadpacket).removeprefix('aten.')] += 1
        return operator(*args, **(kwargs or {}))


# MiB that a forward pass of the code named by each family's docstring, or of timm's gMLP, keeps for
# its backward pass, of 8 images of 224 x 224 pixels in float32: measured of that code itself.
SAVED = {
    'wavemlp-t': 856,
    'wavemlp-s': 1315,
    'repmlpnet-t224': 639,
    'posmlp-t': 1338,
    'vip-s7': 1071,
    'gmlp-s16': 1063,
}


@pytest.mark.slow
@pytest.mark.parametrize('name', SAVED)
def test_as_much_is_saved_for_the_backward_pass_as_by_the_published_code(name):
    family, arch = name.split('-')
    peer = PEERS[family]
    module = peer.training(peer.backbone(arch, out_indices=(3,)).train())
    x = images(8, 3, 224, 224)
    saved = saved_bytes(lambda: module(x), apart_from=[*module.parameters(), *module.buffers()])
    assert round(saved / 2**20) == SAVED[name]


def archs() -> list:
    """``(family, arch)`` of every peer; the smallest of each, the others marked slow."""
    return [
        pytest.param(
            family, arch, marks=() if arch == SMALLEST[peer.backbone.__name__] else pytest.mark.slow
        )
        for family, peer in PEERS.items()
        for arch in peer.backbone.archs
    ]


@pytest.mark.parametrize(('family', 'arch'), archs())
@torch.no_grad()
def test_there_is_a_peer_of_every_arch(family, arch):
    peer = PEERS[family]
    with torch.device('meta'):  # shapes alone
        model = peer.backbone(arch, out_indices=peer.out_indices, **peer.settings).train()
        constraint = peer.sizes(model.arch)
        x = torch.empty(1, 3, *(constraint.only or (max(64, d) for d in constraint.divisors)))
        wanted = [output.shape for output in model(x)]
        assert [output.shape for output in peer.training(model)(x)] == wanted
        for levels, build in peer.others.values():
            assert [o.shape for o in build(model)(x)] == [wanted[level] for level in levels]


def test_peers_are_found_in_their_folder():
    assert set(PEERS) <= set(families())
    assert {'wavemlp', 'gmlp', 'repmlpnet'} <= set(PEERS)
    for family, peer in PEERS.items():
        assert families()[family] is peer.backbone
    assert {peer.name for peer in PEERS.values()} == {'published', 'timm'}
    assert OTHERS == [('mlp_mixer', 'mmpretrain'), ('repmlpnet', 'mmpretrain')]


def test_two_peers_of_a_family_are_refused(monkeypatch):
    monkeypatch.setattr(libraries, 'PEERS', (*libraries.PEERS, PEERS['wavemlp']))
    with pytest.raises(ValueError, match='two peers of wavemlp'):
        peers._find()


def test_settings_leave_nothing_to_chance():
    model = tiny('eamlp').train()
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} <= {0.0}


@pytest.mark.parametrize('name', CONTENDERS)
@torch.no_grad()
def test_contenders_give_maps_of_strides_4_to_32(name):
    contender = CONTENDERS[name]().eval()
    assert all(m.isfinite().all() for m in contender(images(1, 3, 64, 96)))
    contender.to('meta')
    for height, width in ((224, 224), (512, 512), (800, 1344)):
        shapes = [m.shape for m in contender(torch.empty(2, 3, height, width, device='meta'))]
        assert shapes == [
            (2, 96 * 2**i, height // stride, width // stride)
            for i, stride in enumerate((4, 8, 16, 32))
        ]


@pytest.mark.parametrize('name', CONTENDERS)
def test_contenders_train_without_chance(name):
    contender, x = CONTENDERS[name]().train(), images(2, 3, 64, 64)
    first, second = (contender(x)[3] for _ in range(2))
    assert first.equal(second)


# -- RepMLPNet, in its two forms ------------------------------------------------------------------

# Windows that do not halve: so many of them, by height and width, on the smallest image they fill.
FREE = {(6, 4): (4, 4), (3, 4): (4, 2), (3, 2): (2, 2), (1, 2): (3, 1)}
WINDOWS = [
    pytest.param(HALVED, (32, 64), id='one window'),
    pytest.param(HALVED, (64, 192), id='six windows'),
    pytest.param(tuple(FREE), (96, 64), id='other windows'),
]
FORMS = (PublishedTrain, PublishedDeploy)


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


@pytest.mark.parametrize('peer', FORMS)
@pytest.mark.parametrize('kernels', [(), (1, 3), (3, 5)])
@pytest.mark.parametrize(('windows', 'size'), WINDOWS)
@torch.no_grad()
def test_outputs_equal_ours(peer, windows, size, kernels):
    model, x = small(windows, kernels), batch(size)
    for theirs, ours in zip(peer(model)(x), model(x), strict=True):
        assert theirs.shape == ours.shape
        assert relative_error(theirs, ours) < 3e-15


@pytest.mark.parametrize('peer', FORMS)
@torch.no_grad()
def test_settings_of_the_model_are_taken_over(peer):
    options = dict(in_channels=5, out_indices=(0, 2), act_cfg=dict(type='GELU', approximate='tanh'))
    model, x = small(**options), batch((32, 64), channels=5)
    published = peer(model)
    theirs, ours = published(x), model(x)
    assert [relative_error(a, b) < 3e-15 for a, b in zip(theirs, ours, strict=True)] == [True] * 2
    half = peer(model.float().bfloat16())
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize(('windows', 'size'), WINDOWS)
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
    train, deploy = (peer(model) for peer in FORMS)
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


@pytest.mark.parametrize('peer', FORMS)
def test_the_model_is_left_alone(peer):
    model = small()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    published = peer(model)
    with torch.no_grad():
        for tensor in published.state_dict().values():
            tensor.fill_(7)
    for name, tensor in model.state_dict().items():
        assert tensor.equal(before[name]), name


@pytest.mark.parametrize('peer', FORMS)
def test_images_that_windows_do_not_fill_are_refused(peer):
    model = small(tuple(FREE))
    height, width = model.arch.filled_sizes().divisors
    assert [(height // (4 << i) // h, width // (4 << i) // w) for i, (h, w) in enumerate(FREE)] == [
        *FREE.values()
    ]
    with pytest.raises(ValueError, match=rf'multiple of {height}, the width of {width}'):
        peer(model)(batch((height, width - 32)))


BUILDERS = [
    *(('timm', family, PEERS[family].training) for family in ('gmlp', 'resmlp', 'mlp_mixer')),
    ('timm', 'gmlp', lambda _: CONTENDERS['swin-t']()),
    *(('mmpretrain', family, PEERS[family].others[name].build) for family, name in OTHERS),
]


@pytest.mark.parametrize(('library', 'family', 'build'), BUILDERS)
def test_a_missing_library_is_told_in_one_line(library, family, build, monkeypatch):
    model = tiny(family)
    for name in [name for name in sys.modules if name.split('.')[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    find = PathFinder.find_spec

    def find_others(name, path=None, target=None):
        return None if name == library else find(name, path, target)

    monkeypatch.setattr(PathFinder, 'find_spec', find_others)
    with pytest.raises(UserError) as told:
        build(model)
    assert re.fullmatch(rf'.*\b{library}\b.*install.*', str(told.value))
