"""CycleMLP against what the published code computes and against its formula written out."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmwave.inspect.memory import held_bytes
from mmwave.models import CycleMLP
from mmwave.models.backbones.cyclemlp import (
    ARCHS,
    CycleBlock,
    CycleFC,
    CycleMLPArch,
    cycle_offsets,
)
from tests import parity
from tests.contracts import images, relative_error
from tests.convert import published

GOLDENS = json.loads((Path(__file__).parents[2] / 'data/cyclemlp-goldens.json').read_text())


@pytest.mark.parametrize('case', GOLDENS)
def test_computes_what_the_release_computes(case, tmp_path):
    golden = GOLDENS[case]
    classes = None if 'outputs' in golden else 16
    shapes = published.cyclemlp(**asdict(ARCHS[golden['arch']]), classes=classes)
    model, state = parity.converted(golden, shapes, 'CycleMLP', tmp_path)
    parity.assert_outputs(model, state, golden, 1e-12)


# Parameters of the classifier with 1000 classes and MACs of convolutions and linear layers at
# 224 x 224, both of the release's code (cycle_mlp.py at 4e062a0), to the digits stated; its README
# prints 15M 2.1G, 27M 3.9G, 38M 6.9G, 52M 10.1G and 76M 12.3G.
@pytest.mark.parametrize(
    ('arch', 'parameters', 'macs'),
    [
        ('b1', 15.155e6, 2.12e9),
        ('b2', 26.803e6, 3.88e9),
        ('b3', 38.386e6, 6.83e9),
        pytest.param('b4', 51.797e6, 10.03e9, marks=pytest.mark.slow),
        ('b5', 75.747e6, 12.23e9),
    ],
)
def test_parameters_and_macs_are_the_release_s(arch, parameters, macs):
    dim = ARCHS[arch].dims[-1]
    with torch.device('meta'):
        backbone = CycleMLP(arch, out_indices=(3,)).eval()
        head = nn.Linear(dim, 1000)
        with FlopCounterMode(display=False) as counter:
            head(backbone(torch.empty(1, 3, 224, 224))[0].mean(dim=(2, 3)))
    counted = sum(p.numel() for m in (backbone, head) for p in m.parameters())
    assert abs(counted - parameters) <= 0.5e3
    assert abs(counter.get_total_flops() / 2 - macs) <= 0.005e9


def test_stem_rounds_as_the_release_does():
    output = CycleMLP('b1', out_indices=(0,)).eval()(images(1, 3, 333, 224))[0]
    assert output.shape == (1, 64, 83, 56)


def test_only_blocks_and_outputs_have_norms_and_no_table_is_stored():
    model = CycleMLP('b2')
    for part in (model.stem, *model.downsamples):
        assert isinstance(part.norm, nn.Identity)
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 2 * sum(ARCHS['b2'].depths) + 4
    assert {norm.eps for norm in norms} == {1e-5}
    assert not list(model.buffers())


@pytest.mark.parametrize(('dim', 'step'), [(2, (1, 0)), (3, (0, 1))])
def test_channels_are_read_in_turn_at_zero_plus_one_and_minus_one(dim, step):
    """What a single pixel of one channel reaches, by a Cycle FC of identity weights."""
    assert cycle_offsets(7) == (0, 1, -1, 0, 1, -1, 0)
    layer = CycleFC(7, dim)
    nn.init.eye_(layer.weight.data[:, :, 0, 0])
    nn.init.zeros_(layer.bias)
    x = torch.zeros(1, 7, 5, 5)
    x[0, :, 2, 2] = 1
    for channel, offset in enumerate((0, 1, -1, 0, 1, -1, 0)):
        # It is read from a position before it where the offset is positive.
        where = layer(x)[0, channel].nonzero().tolist()
        assert where == [[2 - offset * step[0], 2 - offset * step[1]]]


def written_out(block: CycleBlock, x: torch.Tensor) -> torch.Tensor:
    """A block from its parameters, position by position: indices, dot products and exponentials."""
    n, channels, height, width = x.shape

    def fc(layer, t):
        out = torch.einsum('oc,nchw->nohw', layer.weight.flatten(1), t)
        return out if layer.bias is None else out + layer.bias[:, None, None]

    def norm(layer, t):
        t = t - t.mean(dim=1, keepdim=True)
        t = t / torch.sqrt((t * t).mean(dim=1, keepdim=True) + 1e-5)
        return t * layer.weight[:, None, None] + layer.bias[:, None, None]

    def gelu(t):
        return 0.5 * t * (1 + torch.erf(t / 2**0.5))

    def read(t, dy, dx):
        rows = []
        for i in range(height):
            for j in range(width):
                inside = 0 <= i + dy < height and 0 <= j + dx < width
                rows.append(t[..., i + dy, j + dx] if inside else torch.zeros_like(t[..., 0, 0]))
        return torch.stack(rows, dim=-1).unflatten(-1, (height, width))

    def cycled(t, dy, dx):
        turns = ((0, 0), (dy, dx), (-dy, -dx))
        return torch.stack([read(t[:, i], *turns[i % 3]) for i in range(channels)], dim=1)

    mixer, y = block.mixer, norm(block.norm1, x)
    maps = fc(mixer.width, cycled(y, 0, 1)), fc(mixer.height, cycled(y, 1, 0)), fc(mixer.channel, y)
    pooled = sum(maps).sum(dim=(2, 3), keepdim=True) / (height * width)
    scores = fc(mixer.reweight.fc2, gelu(fc(mixer.reweight.fc1, pooled))).reshape(n, channels, 3)
    parts = scores.exp() / scores.exp().sum(dim=2, keepdim=True)
    x = x + fc(mixer.proj, sum(parts[:, :, k, None, None] * m for k, m in enumerate(maps)))
    return x + fc(block.mlp.fc2, gelu(fc(block.mlp.fc1, norm(block.norm2, x))))


@pytest.mark.parametrize('size', [(5, 9), (2, 3), (1, 1)])
def test_block_equals_its_formula_in_values_and_gradients(size):
    torch.manual_seed(0)
    block = CycleBlock(8, 3, 0.0, dict(type='GELU')).double()
    for name, parameter in block.named_parameters():  # no bias of 0, no weight near 0
        nn.init.normal_(parameter, mean=float(name.endswith('weight') and 'norm' in name), std=0.3)
    x = images(2, 8, *size).double().requires_grad_()
    inputs = [x, *block.parameters()]
    pull = images(2, 8, *size, seed=7).double()
    results = []
    for output in (block(x), written_out(block, x)):
        results.append((output, torch.autograd.grad(output, inputs, pull)))
    (got, got_grads), (wanted, wanted_grads) = results
    assert relative_error(got, wanted) < 1e-13
    names = ['image', *(n for n, _ in block.named_parameters())]
    scale = max(g.abs().max() for g in wanted_grads)
    for name, a, b in zip(names, got_grads, wanted_grads, strict=True):
        # Against the largest gradient of all: some are zero by construction on a single position.
        assert ((a - b).abs().max() / scale).item() < 1e-13, name


def test_weights_are_drawn_as_in_the_release():
    """Layers of blocks with a deviation of 0.02, stem and downsamples as torch's convolutions."""
    torch.manual_seed(0)
    model = CycleMLP('b1', out_indices=(3,))
    block = model.stages[2][0]
    mixer = block.mixer
    layers = [mixer.width, mixer.height, mixer.proj, mixer.reweight.fc2, block.mlp.fc1]
    for layer in layers:
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
        assert not layer.bias.any()
    assert mixer.channel.weight.std().item() == pytest.approx(0.02, rel=0.05)
    for part in (model.stem, *model.downsamples):
        inputs = part.conv.weight[0].numel()
        assert part.conv.weight.abs().max().item() == pytest.approx(inputs**-0.5, rel=1e-2)
        assert part.conv.bias.any()


def test_arch_as_a_dict_and_its_checks():
    fields = dict(depths=[1, 1, 1, 1], dims=[8, 12, 16, 20])
    model = CycleMLP(fields)
    assert model.arch == CycleMLPArch(**fields)
    assert [i.channels for i in model.stage_info] == fields['dims']
    assert [i.stride for i in model.stage_info] == [4, 8, 16, 32]
    assert CycleMLP(asdict(ARCHS['b1'])).arch == ARCHS['b1']
    for change, message in (
        (dict(depths=[1, 1, 1]), r'depths=\(1, 1, 1\) must be 4 positive numbers'),
        (dict(dims=[8, 12, 16, 18]), r'dims=\(8, 12, 16, 18\) must be multiples of 4'),
        (dict(mlp_ratios=[4, 4, 0, 4]), r'mlp_ratios=\(4, 4, 0, 4\) must be 4 positive'),
    ):
        with pytest.raises(ValueError, match=message):
            CycleMLP(fields | change)


def test_lean_keeps_the_input_three_maps_and_the_pre_activation():
    """Per block 1 + 3 + 1 + 4 maps, the first being the next one's here; as published, 18."""
    for lean, maps in ((True, 9), (False, 18)):
        model = CycleMLP(
            dict(depths=(1, 1, 1, 1), dims=(64,) * 4), out_indices=(0,), lean=lean
        ).train()
        block, x = model.stages[0][0], images(2, 64, 32, 32)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        held = held_bytes(lambda model=model, block=block, x=x: model.run_part(block, x))
        assert maps <= held / x.nbytes < maps + 0.1
