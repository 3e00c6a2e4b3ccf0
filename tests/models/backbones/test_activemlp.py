"""ActiveMLP against what the published code computes and against its formula written out."""

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmwave.models import ActiveMLP
from mmwave.models.backbones.activemlp import ARCHS, ActiveBlock, ActiveMLPArch, PositionConv
from tests import parity
from tests.contracts import images, relative_error
from tests.convert import published
from tests.families import FAMILIES

GOLDENS = json.loads((Path(__file__).parents[2] / 'data/activemlp-goldens.json').read_text())
TINY = FAMILIES['ActiveMLP'].tiny


@pytest.mark.parametrize('case', GOLDENS)
def test_computes_what_the_release_computes(case, tmp_path):
    golden = GOLDENS[case]
    classes = None if 'outputs' in golden else 16
    shapes = published.activemlp(**asdict(ARCHS[golden['arch']]), classes=classes)
    model, state = parity.converted(golden, shapes, 'ActiveMLP', tmp_path)
    offsets = {}
    for wanted in golden['offsets']:
        i, j = wanted['block']
        model.stages[i][j].offsets.register_forward_hook(
            lambda module, inputs, output, key=(i, j): offsets.update({key: output})
        )
    parity.assert_outputs(model, state, golden, 1e-12)
    assert len(offsets) == len(golden['offsets']) == 5
    for wanted in golden['offsets']:
        assert parity.error_at_samples(offsets[tuple(wanted['block'])], wanted) < 1e-12


# Parameters of the classifier with 1000 classes and MACs of convolutions, linear layers and norms
# at 224 x 224, both computed with the release's code (models/activemlp.py at 99dbe38). Norms are
# not counted here.
@pytest.mark.parametrize(
    ('arch', 'parameters', 'macs'),
    [
        ('xt', 15.349e6, 2.17e9),
        ('t', 27.152e6, 3.95e9),
        ('s', 38.631e6, 6.89e9),
        ('b', 52.155e6, 10.11e9),
        ('l', 76.238e6, 12.35e9),
    ],
)
def test_parameters_and_macs_are_the_release_s(arch, parameters, macs):
    with torch.device('meta'):
        backbone = ActiveMLP(arch, out_indices=(3,)).eval()
        head = torch.nn.Linear(ARCHS[arch].dims[-1], 1000)
        with FlopCounterMode(display=False) as counter:
            head(backbone(torch.empty(1, 3, 224, 224))[0].mean(dim=(2, 3)))
    counted = sum(p.numel() for m in (backbone, head) for p in m.parameters())
    assert abs(counted - parameters) <= 0.5e3
    assert counter.get_total_flops() / 2 == pytest.approx(macs, rel=0.015)


# Of the dense backbones, with the release's code (segmentation/activemlp.py at 99dbe38).
@pytest.mark.parametrize(
    ('arch', 'parameters'),
    [('xt', 14.837e6), ('t', 26.640e6), ('s', 38.119e6), ('b', 51.643e6), ('l', 75.470e6)],
)
def test_parameters_of_dense_backbones(arch, parameters):
    with torch.device('meta'):
        backbone = ActiveMLP(arch)
    assert abs(sum(p.numel() for p in backbone.parameters()) - parameters) <= 0.5e3


# The blocks that make offsets, as the release's code has them.
@pytest.mark.parametrize(
    ('arch', 'blocks'),
    [
        ('xt', [[0], [0], [0, 2], [0]]),
        ('t', [[0], [0], [0, 2, 4, 6, 8], [0]]),
        ('s', [[0], [0], [0, 6, 12], [0]]),
        ('b', [[0], [0, 6], [0, 6, 12, 18, 24], [0]]),
        ('l', [[0], [0], [0, 6, 12, 18], [0]]),
    ],
)
def test_blocks_that_predict_offsets(arch, blocks):
    with torch.device('meta'):
        model = ActiveMLP(arch)
    for stage, wanted in zip(model.stages, blocks, strict=True):
        assert [j for j, block in enumerate(stage) if block.offsets is not None] == wanted
        assert [j for j, block in enumerate(stage) if block.position is not None] == [0]


def test_stem_rounds_as_the_release_does():
    output = ActiveMLP('xt', out_indices=(0,)).eval()(images(1, 3, 333, 224))[0]
    assert output.shape == (1, 64, 83, 56)


def written_out(block, x, offsets, position):
    """A block from its parameters, with matrix products, sums over taps and loops over samples."""

    def fc(layer, t):
        out = torch.einsum('oc,nchw->nohw', layer.weight.flatten(1), t)
        return out if layer.bias is None else out + layer.bias[:, None, None]

    def normed(norm, t):
        centred = t - t.mean(dim=1, keepdim=True)
        t = centred / (centred.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
        return t * norm.weight[:, None, None] + norm.bias[:, None, None]

    def gelu(t):
        return 0.5 * t * (1 + torch.erf(t / 2**0.5))

    def at(t, n, c, i, j):
        inside = 0 <= i < t.shape[2] and 0 <= j < t.shape[3]
        return t[n, c, i, j] if inside else t.new_zeros(())

    def sampled(t, steps, axis):
        share, values = t.shape[1] // steps.shape[1], []
        for n, c, i, j in torch.cartesian_prod(*map(torch.arange, t.shape)).tolist():
            place = (j if axis == 3 else i) + steps[n, c // share, i, j]
            low = int(place.detach().floor())
            pair = [at(t, n, c, i, k) if axis == 3 else at(t, n, c, k, j) for k in (low, low + 1)]
            values.append((low + 1 - place) * pair[0] + (place - low) * pair[1])
        return torch.stack(values).reshape(t.shape)

    if block.offsets is not None:
        padded = torch.nn.functional.pad(x, (1, 1, 1, 1))
        h, w = x.shape[2:]
        taps = [
            position.weight[:, 0, i, j, None, None] * padded[:, :, i : i + h, j : j + w]
            for i in range(3)
            for j in range(3)
        ]
        x = x + sum(taps) + position.bias[:, None, None]
        offsets = fc(block.offsets.proj, normed(block.offsets.norm, x))
    y, mixer = normed(block.norm1, x), block.mixer
    count = offsets.shape[1] // 2
    maps = (
        fc(mixer.width, sampled(y, offsets[:, :count], 3)),
        fc(mixer.height, sampled(y, offsets[:, count:], 2)),
        fc(mixer.channel, y),
    )
    pooled = sum(maps).mean(dim=(2, 3), keepdim=True)
    scores = fc(mixer.reweight.fc2, gelu(fc(mixer.reweight.fc1, pooled)))
    parts = scores.reshape(len(x), -1, 3).softmax(dim=2)
    mixed = sum(parts[:, :, k, None, None] * m for k, m in enumerate(maps))
    x = x + fc(mixer.proj, mixed)
    return x + fc(block.mlp.fc2, gelu(fc(block.mlp.fc1, normed(block.norm2, x)))), offsets


@pytest.mark.parametrize('size', [(3, 4), (1, 1)])
@pytest.mark.parametrize('share', [0, 2])
def test_block_equals_its_formula_in_values_and_gradients(size, share):
    torch.manual_seed(0)
    block = ActiveBlock(
        8, 2, share=share, is_first=False, drop_path=0.0, act_cfg=dict(type='GELU')
    ).double()
    position = PositionConv(8).double()
    for parameter in block.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    x = images(2, 8, *size).double().requires_grad_()
    given = 1.5 * images(2, 8, *size, seed=3).double().requires_grad_()
    inputs = dict(x=x, **dict(block.named_parameters()))
    inputs |= dict(position.named_parameters()) if share else dict(offsets=given)
    pull = images(2, 8, *size, seed=7).double()
    results = []
    for run in (block, lambda *given: written_out(block, *given)):
        output, offsets = run(x, given, position)
        # What follows reads both.
        loss = (output * pull).sum() + (offsets * pull).sum()
        results.append((output, torch.autograd.grad(loss, list(inputs.values()))))
    (got, got_grads), (wanted, wanted_grads) = results
    assert relative_error(got, wanted) < 1e-13
    scale = max(g.abs().max() for g in wanted_grads)
    for name, a, b in zip(inputs, got_grads, wanted_grads, strict=True):
        # Against the largest gradient of all: some are zero by construction on a single position.
        assert ((a - b).abs().max() / scale).item() < 1e-13, name


def test_a_position_convolution_serves_its_stage_and_is_added_to_the_stream():
    model = ActiveMLP(TINY, out_indices=(2,), with_cp=True).double().train()
    seen = []
    for part in [stage[0].position for stage in model.stages]:
        part.register_forward_hook(lambda m, inputs, output: seen.append((m, *inputs, output)))
    with torch.no_grad():
        model(images(1, 3, 40, 48).double())
    # Depths are 2, 1 and 3, offsets are made every second block but in the last one.
    assert [m for m, _, _ in seen] == [stage[0].position for stage in model.stages]
    deep = ActiveMLP(dict(TINY, depths=(5, 1, 1, 1)), out_indices=(0,)).double().eval()
    deep.stages[0][0].position.register_forward_hook(lambda m, inputs, output: seen.append(m))
    seen.clear()
    with torch.no_grad():
        deep(images(1, 3, 40, 48).double())
    assert seen == [deep.stages[0][0].position] * 2


@pytest.mark.parametrize('settings', [dict(lean=False), dict(lean=True), dict(with_cp=True)])
def test_gradients_flow_from_later_blocks_into_the_offsets_of_earlier_ones(settings):
    torch.manual_seed(0)
    arch = dict(TINY, depths=(4, 1, 1, 1), interval=4)
    model = ActiveMLP(arch, out_indices=(0,), **settings).double().train()
    x = images(2, 3, 40, 48).double()
    gradients = []
    for stopped in (False, True):
        given = []

        def stop(block, inputs, stopped=stopped, given=given):
            features, offsets, position = inputs
            given.append(offsets)
            return features, offsets.detach() if stopped else offsets, position

        hooks = [block.register_forward_pre_hook(stop) for block in model.stages[0][1:]]
        model.zero_grad()
        model(x)[0].square().sum().backward()
        for hook in hooks:
            hook.remove()
        assert all(torch.equal(a, b) for a, b in pairwise(given[:3]))
        gradients.append(model.stages[0][0].offsets.proj.weight.grad.clone())
    whole, own = gradients
    assert (whole - own).norm() > 0.1 * own.norm()


def test_a_stage_of_one_block_predicts_its_own_offsets():
    model = ActiveMLP(dict(TINY, depths=(1, 1, 1, 1))).eval()
    assert all(stage[0].offsets is not None for stage in model.stages)
    x = images(1, 3, 64, 64)
    before = model(x)[0]
    model.stages[0][0].offsets.proj.bias.data += 1
    assert not torch.equal(model(x)[0], before)


def test_initial_weights_are_drawn_as_in_the_release():
    torch.manual_seed(0)
    model = ActiveMLP('xt')
    for name, parameter in model.named_parameters():
        if 'norm' in name:
            assert (parameter == (1 if name.endswith('weight') else 0)).all(), name
        elif name.endswith('bias'):
            assert not parameter.any(), name
        else:
            kernel = parameter.shape[2] * parameter.shape[3]
            outputs = 1 if parameter.shape[1] == 1 else len(parameter)  # of a group
            wanted = 0.02 if kernel == 1 else (2 / (kernel * outputs)) ** 0.5
            assert parameter.std().item() == pytest.approx(wanted, rel=0.1), name


def test_arch_as_a_dict_and_its_checks():
    fields = dict(depths=[1, 2, 1, 1], dims=[8, 12, 16, 24], shares=[2, 3, 4, 8], interval=3)
    model = ActiveMLP(fields)
    assert model.arch == ActiveMLPArch(**fields)
    assert [i.channels for i in model.stage_info] == fields['dims']
    assert ActiveMLP(asdict(ARCHS['xt'])).arch == ARCHS['xt']
    for change, message in (
        (dict(depths=[1, 1, 1]), r'depths=\(1, 1, 1\) must be 4 positive numbers'),
        (dict(dims=[8, 12, 16, 18]), 'multiples of 4'),
        (dict(shares=[2, 5, 4, 8]), r'multiples of shares=\(2, 5, 4, 8\)'),
        (dict(interval=0), 'interval=0 must be a positive whole number'),
    ):
        with pytest.raises(ValueError, match=message):
            ActiveMLP(fields | change)
