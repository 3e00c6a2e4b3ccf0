"""RepMLPNet against what the published code computes, in both forms, and at any size."""

import json
import re
import warnings
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file
from mmwave.deploy import to_deploy
from mmwave.models import RepMLPNet
from mmwave.models.backbones.repmlpnet import ARCHS, STRIDES, RepMLPNetArch
from tests import parity
from tests.contracts import images, randomise_norms, relative_error, total

GOLDENS = json.loads((Path(__file__).parents[2] / 'data/repmlpnet-goldens.json').read_text())
CLASSES = 16
TINY = dict(depths=(1, 2, 1, 1), dims=(8, 12, 16, 24), share_sets=(1, 2, 4, 8))
# Windows of 64 x 32 pixels at every stage, and windows that show other pixels at every stage.
NESTED = TINY | dict(windows=((16, 8), (8, 4), (4, 2), (2, 1)))
LOOSE = TINY | dict(windows=((8, 6), (4, 4), (3, 1), (1, 2)))


def tiny(arch=NESTED, **options):
    torch.manual_seed(0)
    model = RepMLPNet(arch, **options).double()
    randomise_norms(model)
    return model


def published_name(name: str) -> str:
    """What the release calls a parameter of ours."""
    for pattern, published in (
        (r'^stem\.conv\.', 'conv_embedding.conv.'),
        (r'^stem\.norm\.', 'conv_embedding.bn.'),
        (r'^downsamples\.(\d)\.conv\.', r'embeds.\1.conv.'),
        (r'^downsamples\.(\d)\.norm\.', r'embeds.\1.bn.'),
        (r'^out_norms\.3\.', 'head_norm.'),
        (r'\.ffn\.fc(\d)\.', r'.ffn_block.ffn_fc\1.conv.'),
        (r'\.ffn\.norm(\d)\.', r'.ffn_block.ffn_fc\1.bn.'),
        (r'(\d+\.\d+)\.norm(\d)\.', r'\1.prebn\2.'),
        (r'global_perceptron', 'repmlp_block.gp'),
        (r'channel_perceptron\.norm', 'repmlp_block.fc3_bn'),
        (r'channel_perceptron', 'repmlp_block.fc3'),
        (r'local_perceptron\.(\d)\.conv', r'repmlp_block.repconv\1.conv'),
        (r'local_perceptron\.(\d)\.norm', r'repmlp_block.repconv\1.bn'),
    ):
        name = re.sub(pattern, published, name)
    return name


def published_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    if 'global_perceptron' in name and len(shape) == 2:
        return (*shape, 1, 1)
    if name.endswith('channel_perceptron.weight'):
        return (shape[0] * shape[1], shape[2], 1, 1)
    return shape


def published_shapes(arch: str) -> list[tuple[str, tuple[int, ...]]]:
    with torch.device('meta'):
        state = RepMLPNet(arch, out_indices=(3,)).state_dict()
    shapes = [(published_name(k), published_shape(k, tuple(v.shape))) for k, v in state.items()]
    return [*shapes, ('head.weight', (CLASSES, ARCHS[arch].dims[-1])), ('head.bias', (CLASSES,))]


@pytest.mark.parametrize(
    'case', [pytest.param(c, marks=pytest.mark.slow if '-b' in c else ()) for c in GOLDENS]
)
def test_computes_what_the_release_computes(case, tmp_path):
    golden = GOLDENS[case]
    arch = golden['arch']
    with torch.device('meta'):
        blank = RepMLPNet(arch, out_indices=(3,))
    counted = sum(p.numel() for p in blank.parameters()) + CLASSES * (ARCHS[arch].dims[-1] + 1)
    assert counted == golden['params']
    torch.save(parity.state_dict(published_shapes(arch)), tmp_path / 'published.pth')
    convert_file(tmp_path / 'published.pth', tmp_path / 'ours.pth')
    content = read_checkpoint(tmp_path / 'ours.pth')
    assert content['meta']['backbone'] == dict(type='mmwave.RepMLPNet', arch=arch)
    state = content['state_dict']
    model = RepMLPNet(arch).double().eval()
    own = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
    missing, unexpected = model.load_state_dict(own, strict=False)
    assert not unexpected
    assert all(name.startswith('out_norms.') for name in missing)
    last = model.out_norms['3']
    x = parity.image(golden['input']).double()
    forms = {'train': model}
    if golden['input'][0] == 1 or arch == 'b256':  # one check of each size in deploy form
        forms['deploy'], _ = to_deploy(model)
    for form, network in forms.items():
        network.out_norms = torch.nn.ModuleDict({str(i): torch.nn.Identity() for i in range(4)})
        with torch.no_grad():
            outputs = network(x)
            logits = last(outputs[3]).mean(dim=(2, 3)) @ state['head.fc.weight'].double().T
            logits += state['head.fc.bias'].double()
        for output, wanted in zip(outputs, golden['stages'], strict=True):
            assert list(output.shape) == wanted['shape']
            values = torch.tensor(wanted['value'], dtype=torch.float64)
            assert relative_error(output.flatten()[wanted['index']], values) < 1e-11, form
        wanted = torch.tensor(golden['logits'], dtype=torch.float64)
        assert relative_error(logits, wanted) < 1e-11, form


# Parameters of the classifier with 1000 classes and MACs of convolutions and linear layers at the
# trained size, in millions and billions, both computed with the release's code at 3eff13f with
# norms counted, in train form and in deploy form. Norms are below 1 % of them.
@pytest.mark.parametrize(
    ('arch', 'parameters', 'macs'),
    [
        ('t224', 38.294, (2.829, 2.814)),
        ('t256', 58.688, (4.285, 4.265)),
        ('b224', 68.243, (6.716, 6.686)),
        ('b256', 96.448, (9.693, 9.654)),
        ('d256', 86.888, (8.691, 8.650)),
        ('l256', 117.642, (11.675, 11.626)),
    ],
)
def test_parameters_and_macs_are_the_release_s(arch, parameters, macs):
    side = int(arch[1:])
    dim = ARCHS[arch].dims[-1]
    for deploy, wanted in zip((False, True), macs, strict=True):
        with torch.device('meta'):
            backbone = RepMLPNet(arch, out_indices=(3,), deploy=deploy).eval()
            head = torch.nn.Linear(dim, 1000)
            with FlopCounterMode(display=False) as counter:
                head(backbone(torch.empty(1, 3, side, side))[0].mean(dim=(2, 3)))
        counted = sum(p.numel() for m in (backbone, head) for p in m.parameters())
        if not deploy:
            assert abs(counted / 1e6 - parameters) <= 0.5e-3
        assert 0.99 * wanted < counter.get_total_flops() / 2e9 < wanted


@pytest.mark.parametrize('size', [(64, 64), (192, 32), (33, 47), (100, 37), (64, 333)])
@pytest.mark.parametrize('arch', [NESTED, LOOSE])
def test_maps_cover_the_image_and_padding_touches_nothing(arch, size):
    """Windows are filled up behind the norm: what lies outside cannot be seen."""
    model = tiny(arch).eval()
    x = images(2, 3, *size).double()
    with torch.no_grad():
        outputs = model(x)
        for output, stride in zip(outputs, STRIDES, strict=True):
            assert output.shape[2:] == tuple(-(-side // stride) for side in size)
        # Block by block, from the definition: cut a map, fill up, mix, join, crop.
        for output, wanted in zip(outputs, written_out(model, x), strict=True):
            assert relative_error(output, wanted) < 1e-13


def written_out(model: RepMLPNet, x: torch.Tensor) -> list[torch.Tensor]:
    """RepMLPNet window by window and channel by channel, from its parameters."""

    def norm(layer, t):
        scale = layer.weight / torch.sqrt(layer.running_var + layer.eps)
        t = t - layer.running_mean[:, None, None]
        return t * scale[:, None, None] + layer.bias[:, None, None]

    def embed(layer, t, side):
        n, _, height, width = t.shape
        rows, columns = -(-height // side), -(-width // side)
        filled = t.new_zeros(n, t.shape[1], rows * side, columns * side)
        filled[:, :, :height, :width] = t
        patches = filled.unfold(2, side, side).unfold(3, side, side)
        return norm(
            layer.norm, torch.einsum('nchwij,ocij->nohw', patches, layer.conv.weight)
        ).relu()

    def mix(block, t, channel):
        """One window of one channel, (h, w)."""
        sets = block.channel_perceptron.weight.shape[0]
        s = channel % sets
        h, w = t.shape

        def scaled(layer, values):
            gain = layer.weight[s] / torch.sqrt(layer.running_var[s] + layer.eps)
            return (values - layer.running_mean[s]) * gain + layer.bias[s]

        fc = block.channel_perceptron.weight[s] @ t.flatten()
        out = scaled(block.channel_perceptron.norm, fc.view(h, w))
        for k, branch in block.local_perceptron.items():
            reach = int(k) // 2
            framed = t.new_zeros(h + 2 * reach, w + 2 * reach)
            framed[reach : reach + h, reach : reach + w] = t
            taps = sum(
                branch['conv'].weight[s, 0, i, j] * framed[i : i + h, j : j + w]
                for i in range(int(k))
                for j in range(int(k))
            )
            out = out + scaled(branch['norm'], taps)
        return out

    def perceptrons(block, t):
        (h, w), (n, c, height, width) = block.window, t.shape
        gp = block.global_perceptron
        hidden = (t.mean(dim=(2, 3)) @ gp.fc1.weight.T + gp.fc1.bias).clamp(min=0)
        factors = 1 / (1 + torch.exp(-(hidden @ gp.fc2.weight.T + gp.fc2.bias)))
        out = torch.zeros_like(t)
        for y in range(0, height, h):
            for z in range(0, width, w):
                part = t[:, :, y : y + h, z : z + w]
                for i in range(n):
                    for channel in range(c):
                        window = t.new_zeros(h, w)
                        window[: part.shape[2], : part.shape[3]] = part[i, channel]
                        mixed = mix(block, window, channel)[: part.shape[2], : part.shape[3]]
                        out[i, channel, y : y + h, z : z + w] = mixed * factors[i, channel]
        return out

    def ffn(layer, t):
        t = norm(layer.norm1, torch.einsum('oc,nchw->nohw', layer.fc1.weight.flatten(1), t))
        t = 0.5 * t * (1 + torch.erf(t / 2**0.5))
        return norm(layer.norm2, torch.einsum('oc,nchw->nohw', layer.fc2.weight.flatten(1), t))

    outputs = []
    for i, stage in enumerate(model.stages):
        x = embed(model.downsamples[i - 1], x, 2) if i else embed(model.stem, x, 4)
        for block in stage:
            x = x + perceptrons(block, norm(block.norm1, x))
            x = x + ffn(block.ffn, norm(block.norm2, x))
        outputs.append(norm(model.out_norms[str(i)], x))
    return outputs


@pytest.mark.parametrize('size', [(64, 64), (128, 96), (100, 37)])
@pytest.mark.parametrize('training', [True, False])
def test_cut_once_equals_cut_in_every_block(size, training):
    """Statistics, values and gradients; norms in eval mode where padding would reach them."""
    x = images(2, 3, *size).double()
    padded = size == (100, 37)
    runs = []
    for cut_once in (True, False):
        model = tiny(norm_eval=padded, drop_path_rate=0.5).train(training)
        model.cut_once = cut_once
        torch.manual_seed(5)  # drop path draws by image in both
        outputs = model(x)
        total(outputs).backward()
        runs.append((outputs, dict(model.named_buffers()), model))
    (got, got_buffers, a), (wanted, buffers, b) = runs
    for p, q in zip(got, wanted, strict=True):
        assert relative_error(p, q) < 1e-12
    for name, q in buffers.items():
        assert torch.allclose(got_buffers[name], q, rtol=1e-12, atol=1e-12), name
    scale = max(p.grad.abs().max() for p in b.parameters())
    for (name, p), q in zip(a.named_parameters(), b.parameters(), strict=True):
        assert ((p.grad - q.grad).abs().max() / scale).item() < 1e-12, name


def test_padding_stays_out_of_the_statistics_in_training():
    """On padded sizes every norm sees each position of the map once and no other."""
    model = tiny().train()
    seen = {}

    def note(name):
        return lambda module, args: seen.update({name: args[0].shape})

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(note(name))
    model(images(2, 3, 100, 37).double())
    for i, size in enumerate([(25, 10), (13, 5), (7, 3), (4, 2)]):
        assert seen[f'stages.{i}.0.norm1'][2:] == size
        assert seen[f'stages.{i}.0.ffn.norm1'][2:] == size
        assert seen[f'out_norms.{i}'][2:] == size
        assert seen[f'stages.{i}.0.channel_perceptron.norm'][2:] == size
        assert seen[f'stages.{i}.0.local_perceptron.3.norm'][2:] == size


def test_padded_images_go_by_the_definition_wherever_a_norm_takes_statistics():
    """In training, and also where norms alone are in training mode, as in test-time adaptation."""
    x = images(2, 3, 100, 37).double()
    model, reference = tiny().eval(), tiny().eval()
    reference.cut_once = False
    for network in (model, reference):
        network.stages[1][0].norm2.train()
    with torch.no_grad():
        for a, b in zip(model(x), reference(x), strict=True):
            assert torch.equal(a, b)


def test_half_precision_does_not_overflow_on_large_maps():
    model = tiny(dict(NESTED, windows=(64, 32, 16, 8))).eval()
    with torch.no_grad():
        for stage in model.stages:
            stage[0].norm1.bias += 20
        x = images(1, 3, 256, 512)
        for got, wanted in zip(model.half()(x.half()), model.double()(x.double()), strict=True):
            assert relative_error(got.double(), wanted) < 0.02


# Compiled graphs for all sizes: test_compile.py; exported deploy forms: tests/models/deployed.
@pytest.mark.export
def test_graphs_hold_for_other_sizes():
    model = tiny(dict(NESTED, windows=(16, 8, 4, 2)), out_indices=(1,)).eval()
    side = torch.export.Dim.DYNAMIC
    x = images(2, 3, 130, 100).double()
    free = {0: side, 2: side, 3: side}
    graphs = [(torch.export.export(model, (x,), dynamic_shapes=(free,)).module(), 1e-12)]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the size check is evaluated once, as tracing says
        graphs.append((torch.jit.trace(model, x), 1e-8))  # it divides sizes in float32
    for size in ((65, 70), (128, 96), (97, 133), (64, 40)):
        x = images(3, 3, *size).double()
        with torch.no_grad():
            for graph, bound in graphs:
                for got, wanted in zip(graph(x), model(x), strict=True):
                    assert relative_error(got, wanted) < bound


@pytest.mark.parametrize('kernels', [(3,), (1, 3, 5)])
def test_channels_last_in_float32(kernels):
    model = tiny(dict(NESTED, kernels=kernels)).float().eval()
    x = images(2, 3, 64, 96)
    with torch.no_grad():
        wanted = model(x)
        model = model.to(memory_format=torch.channels_last)
        got = model(x.contiguous(memory_format=torch.channels_last))
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 1e-5


def test_a_shift_by_a_whole_window_shifts_the_output():
    """Windows see each other through the global perceptron alone, which a shift leaves as it is."""
    model = tiny().eval()
    x = images(1, 3, 192, 96).double()
    with torch.no_grad():
        for a, b in zip(model(x), model(x.roll((64, 32), dims=(2, 3))), strict=True):
            h, w = a.shape[2] // 3, a.shape[3] // 3
            assert relative_error(b, a.roll((h, w), dims=(2, 3))) < 1e-13


def test_strict_takes_sizes_that_windows_fill_and_names_them():
    model = tiny(grid_mode='strict').eval()
    assert model(images(1, 3, 128, 96).double())[0].shape[2:] == (32, 24)
    with pytest.raises(
        ValueError, match=r'image of 64 x 48 .* height must be .* 64, the width of 32'
    ):
        model(images(1, 3, 64, 48).double())
    with pytest.raises(
        ValueError, match=r'image of 224 x 320 .* each side must be a multiple of 224'
    ):
        RepMLPNet('t224', grid_mode='strict')(torch.zeros(1, 3, 224, 320))
    for mode in ('resize', 'tile'):
        with pytest.raises(ValueError, match=f"unknown grid_mode '{mode}': .* window, strict"):
            tiny(grid_mode=mode)


def test_strict_equals_window_where_both_work():
    model = tiny().eval()
    strict = tiny(grid_mode='strict').eval()
    strict.load_state_dict(model.state_dict())
    x = images(1, 3, 128, 96).double()
    assert all(torch.equal(a, b) for a, b in zip(model(x), strict(x), strict=True))


def test_named_archs_have_one_window_at_their_size():
    for name, arch in ARCHS.items():
        side = int(name[1:])
        assert all(w == (side // s,) * 2 for w, s in zip(arch.windows, STRIDES, strict=True))


def test_arch_as_a_dict_and_its_checks():
    assert RepMLPNet(NESTED).arch == RepMLPNetArch(**NESTED)
    assert RepMLPNetArch(**asdict(ARCHS['t224'])) == ARCHS['t224']
    assert RepMLPNetArch(**TINY, windows=[8, 4, 2, 1]).windows == ((8, 8), (4, 4), (2, 2), (1, 1))
    for change, message in (
        (dict(depths=[1, 1, 1]), r'depths=\(1, 1, 1\) must be 4 positive numbers'),
        (dict(share_sets=[1, 2, 4, 7]), r'multiples of share_sets=\(1, 2, 4, 7\)'),
        (dict(dims=[8, 12, 16, 26], share_sets=[1, 2, 4, 2]), 'of reduction=4'),
        (dict(windows=[8, 4, 2]), r'windows=.* must be 4 pairs'),
        (dict(windows=[8, 4, 2, (1, 0)]), r'windows=.* must be 4 pairs'),
        (dict(kernels=[3, 1]), r'kernels=\(3, 1\) must be odd numbers in increasing order'),
        (dict(kernels=[2]), r'kernels=\(2,\) must be odd'),
        (dict(kernels=[1.0, 3.0]), r'kernels=\(1\.0, 3\.0\) must be odd'),
        (dict(depths=2), r'depths=\(2,\) must be 4 positive'),
        (dict(windows=8), 'windows=8 must be one or two numbers per stage'),
        (dict(windows=[8.5, 4, 2, 1]), r'windows=.* must be'),
        (dict(reduction=0), 'reduction=0 must be a positive whole number'),
        (dict(mlp_ratio=1.5), 'mlp_ratio=1.5 must be'),
    ):
        with pytest.raises(ValueError, match=message):
            RepMLPNet(NESTED | change)
