"""Hire-MLP against what the published code computes and against its formula written out."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmwave.inspect.memory import held_bytes
from mmwave.models import HireMLP
from mmwave.models.backbones.hiremlp import ARCHS, HireMixer, HireMLPArch
from tests import parity
from tests.contracts import images, randomise_norms, relative_error
from tests.convert import published

GOLDENS = json.loads((Path(__file__).parents[2] / 'data/hiremlp-goldens.json').read_text())
TINY = dict(depths=(2, 1, 1, 1), dims=(8, 12, 16, 20))


@pytest.mark.parametrize('case', GOLDENS)
def test_computes_what_the_release_computes(case, tmp_path):
    golden = GOLDENS[case]
    classes = None if 'outputs' in golden else 16
    sizes = asdict(ARCHS[golden['arch']])
    sizes = {name: value for name, value in sizes.items() if not name.startswith('shift')}
    shapes = published.hiremlp(**sizes, classes=classes)
    model, state = parity.converted(golden, shapes, 'HireMLP', tmp_path)
    parity.assert_outputs(model, state, golden, 1e-11)


# Parameters of the classifier with 1000 classes and MACs at 224 x 224, of the release's code
# (mlp_based/hire_mlp.py at 7ef7ddd); its MACs include norms, which are not counted here.
@pytest.mark.parametrize(
    ('arch', 'parameters', 'macs'),
    [
        ('t', 18.042e6, 2.15e9),
        ('s', 33.114e6, 4.24e9),
        ('b', 58.227e6, 8.13e9),
        ('l', 95.724e6, 13.44e9),
    ],
)
def test_parameters_and_macs_are_the_release_s(arch, parameters, macs):
    dim = ARCHS[arch].dims[-1]
    with torch.device('meta'):
        backbone = HireMLP(arch, out_indices=(3,)).eval()
        head = torch.nn.Linear(dim, 1000)
        with FlopCounterMode(display=False) as counter:
            head(backbone(torch.empty(1, 3, 224, 224))[0].mean(dim=(2, 3)))
    counted = sum(p.numel() for m in (backbone, head) for p in m.parameters())
    assert abs(counted - parameters) <= 0.5e3
    assert counter.get_total_flops() / 2 == pytest.approx(macs, rel=0.015)


def test_steps_of_the_release():
    assert [[ARCHS['b'].shift(i, j) for j in range(4)] for i in range(4)] == [
        [0, 2, 0, 2],
        [0, 2, 0, 2],
        [0, 1, 2, 0],
        [0, 1, 0, 1],
    ]
    for direction, sign in (('forward', 1), ('backward', -1)):
        model = HireMLP('t', shift_direction=direction)
        got = [[block.mixer.rows.shift for block in stage] for stage in model.stages]
        assert got == [[0, 2 * sign], [0, 2 * sign], [0, sign, 2 * sign, 0], [0, sign]]
        for block in (block for stage in model.stages for block in stage):
            assert block.mixer.columns.shift == block.mixer.rows.shift


def test_stem_and_downsamples_end_in_norm_and_relu():
    model = HireMLP(TINY).eval()
    outputs = model.stem(images(1, 3, 333, 224))
    assert outputs.shape == (1, 8, 83, 56)
    for part in (model.stem, *model.downsamples):
        assert isinstance(part.norm, torch.nn.BatchNorm2d)
        assert isinstance(part.act, torch.nn.ReLU)


def test_initial_weights_are_drawn_as_in_the_release():
    torch.manual_seed(0)
    model = HireMLP('t')
    convs = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    for conv in convs:
        assert conv.weight.std().item() == pytest.approx(0.02, rel=0.1)
        assert conv.bias is None or not conv.bias.any()
    assert len(convs) == 4 + 10 * 10


def written_out(mixer: HireMixer, x: torch.Tensor) -> torch.Tensor:
    """The Hire module from its parameters, region by region, by loops and indices modulo sides."""
    count, channels, height, width = x.shape

    def fc(layer, vectors):
        out = vectors @ layer.weight.flatten(1).T
        return out if layer.bias is None else out + layer.bias

    def mlp(part, vectors):
        norm = part.norm
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        hidden = (fc(part.fc1, vectors) - norm.running_mean) * scale + norm.bias
        return fc(part.fc2, hidden.clamp(min=0))

    def mix(part, lines):
        """Lines (N, size, others, C)."""
        size, p = lines.shape[1], part.region_size
        out = [None] * size
        for first in range(0, size, p):
            # Position q of the rolled map is q - shift of the map itself.
            sources = [((first + r) % size - part.shift) % size for r in range(p)]
            vectors = torch.stack([lines[:, s] for s in sources], dim=-1)  # (N, others, C, p)
            mixed = mlp(part, vectors.flatten(2)).unflatten(2, (channels, p))
            for r in range(min(p, size - first)):
                out[sources[r]] = mixed[..., r]
        return torch.stack(out, dim=1)

    t = x.permute(0, 2, 3, 1)
    h = mix(mixer.rows, t)
    w = mix(mixer.columns, t.transpose(1, 2)).transpose(1, 2)
    c = fc(mixer.channel, t)
    pooled = (h + w + c).sum(dim=(1, 2)) / (height * width)
    hidden = fc(mixer.reweight.fc1, pooled)
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    scores = fc(mixer.reweight.fc2, hidden).reshape(count, channels, 3)
    parts = scores.exp() / scores.exp().sum(dim=2, keepdim=True)
    blended = sum(parts[:, None, None, :, k] * m for k, m in enumerate((h, w, c)))
    return fc(mixer.proj, blended).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ('size', 'region', 'shift'),
    [
        ((8, 12), 4, 0),
        ((8, 12), 4, 2),
        ((8, 12), 4, -2),
        ((7, 5), 3, 1),
        ((7, 5), 3, -1),
        ((1, 2), 3, 2),  # continued more than once
        ((1, 1), 2, -1),
    ],
)
def test_mixer_equals_its_formula_in_values_and_gradients(size, region, shift):
    torch.manual_seed(0)
    mixer = HireMixer(8, region, shift, dict(type='GELU')).double().eval()
    randomise_norms(mixer)
    x = images(2, 8, *size).double().requires_grad_()
    inputs = [x, *mixer.parameters()]
    pull = images(2, 8, *size, seed=7).double()
    results = []
    for output in (mixer(x), written_out(mixer, x)):
        results.append((output, torch.autograd.grad(output, inputs, pull)))
    (got, got_grads), (wanted, wanted_grads) = results
    assert relative_error(got, wanted) < 1e-13
    names = ['image', *(n for n, _ in mixer.named_parameters())]
    scale = max(g.abs().max() for g in wanted_grads)
    for name, a, b in zip(names, got_grads, wanted_grads, strict=True):
        # Against the largest gradient of all: some are zero by construction on a single position.
        assert ((a - b).abs().max() / scale).item() < 1e-13, name


def test_arch_as_a_dict_and_its_checks():
    model = HireMLP(TINY)
    assert model.arch == HireMLPArch(**TINY)
    assert HireMLP(asdict(ARCHS['t'])).arch == ARCHS['t']
    for change, message in (
        (dict(depths=[1, 1, 1]), r'depths=\(1, 1, 1\) must be 4 positive numbers'),
        (dict(region_sizes=(4, 3, 0, 2)), r'region_sizes=\(4, 3, 0, 2\) must be 4 positive'),
        (dict(shift_cycles=2), r'shift_cycles=\(2,\) must be 4 positive'),
        (dict(dims=[8, 12, 16, 18]), 'multiples of 4'),
    ):
        with pytest.raises(ValueError, match=message):
            HireMLP(TINY | change)
    with pytest.raises(
        ValueError, match=r"unknown shift_direction 'up': expected 'forward' or 'backward'"
    ):
        HireMLP(TINY, shift_direction='up')


@pytest.mark.parametrize('block', [0, 1])
def test_lean_keeps_the_products_and_no_rearrangement(block):
    """Per block 1 + 2 / 8 + 3 + 1 + 4 maps, the first being the next one's here; without, 18.5."""
    for lean, maps in ((True, 9.25), (False, 18.5)):
        model = HireMLP(dict(depths=(2, 1, 1, 1), dims=(64,) * 4), out_indices=(0,), lean=lean)
        part, x = model.train().stages[0][block], images(2, 64, 32, 32)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        held = held_bytes(lambda model=model, part=part, x=x: model.run_part(part, x))
        assert maps <= held / x.nbytes < maps + 0.1
