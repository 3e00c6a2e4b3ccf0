"""Wave-MLP against what the published code computes and against its formula written out."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmwave.inspect.memory import held_bytes
from mmwave.models import WaveMLP
from mmwave.models.backbones.wavemlp import ARCHS, PhaseAwareTokenMixer, WaveMLPArch
from tests import parity
from tests.contracts import images, randomise_norms, relative_error
from tests.convert import published

GOLDENS = json.loads((Path(__file__).parents[2] / 'data/wavemlp-goldens.json').read_text())


@pytest.mark.parametrize('case', GOLDENS)
def test_computes_what_the_release_computes(case, tmp_path):
    golden = GOLDENS[case]
    classes = None if 'outputs' in golden else 16
    shapes = published.wavemlp(**asdict(ARCHS[golden['arch']]), classes=classes)
    model, state = parity.converted(golden, shapes, 'WaveMLP', tmp_path)
    parity.assert_outputs(model, state, golden, 1e-12)


# Parameters of the classifier with 1000 classes and MACs of convolutions and linear layers at
# 224 x 224, both computed with the release's code (wavemlp_pytorch/models/wavemlp.py at f90e129).
@pytest.mark.parametrize(
    ('arch', 'parameters', 'macs'),
    [
        ('t-dw', 15.286e6, 2.1631e9),
        ('t', 17.193e6, 2.4615e9),
        ('s', 30.708e6, 4.5220e9),
        ('m', 44.057e6, 7.8722e9),
        ('b', 63.586e6, 10.2153e9),
    ],
)
def test_parameters_and_macs_are_the_release_s(arch, parameters, macs):
    dim = ARCHS[arch].dims[-1]
    with torch.device('meta'):
        backbone = WaveMLP(arch, out_indices=(3,)).eval()
        head = torch.nn.Linear(dim, 1000)
        with FlopCounterMode(display=False) as counter:
            head(backbone(torch.empty(1, 3, 224, 224))[0].mean(dim=(2, 3)))
    counted = sum(p.numel() for m in (backbone, head) for p in m.parameters())
    assert abs(counted - parameters) <= 0.5e3
    assert abs(counter.get_total_flops() / 2 - macs) <= 0.5e5


def test_stem_rounds_as_the_release_does():
    output = WaveMLP('t-dw', out_indices=(0,)).eval()(images(1, 3, 333, 224))[0]
    assert output.shape == (1, 64, 83, 56)


@pytest.mark.parametrize('arch', ['s', 'm-dw'])
def test_phase_estimators_always_end_in_batch_norm_and_relu(arch):
    for stage in WaveMLP(arch).stages:
        mixer = stage[0].mixer
        for estimator in (mixer.phase_h, mixer.phase_w):
            assert isinstance(estimator.norm, torch.nn.BatchNorm2d)
            x = images(2, mixer.proj.in_channels, 5, 5)
            assert estimator(x).min() == 0


@pytest.mark.parametrize('arch', ARCHS)
def test_norms_of_stem_and_downsamples(arch):
    model = WaveMLP(arch)
    plain = arch.split('-')[0] in ('m', 'b')
    for part in (model.stem, *model.downsamples):
        assert isinstance(part.norm, torch.nn.Identity) is plain


def written_out(mixer: PhaseAwareTokenMixer, x: torch.Tensor) -> torch.Tensor:
    """PATM from its parameters with matrix products and sums over taps, without the op."""
    channels = x.shape[1]

    def fc(layer, t):
        out = torch.einsum('oc,nchw->nohw', layer.weight.flatten(1), t)
        return out if layer.bias is None else out + layer.bias[:, None, None]

    def phase(estimator):
        norm, t = estimator.norm, fc(estimator.conv, x)
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        t = (t - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]
        return t.clamp(min=0)

    def mix(amplitude, theta, kernel, axis):
        wave = torch.cat([amplitude * torch.cos(theta), amplitude * torch.sin(theta)], dim=1)
        out = torch.zeros_like(amplitude)
        kernel = kernel.reshape(channels, 2, 7)
        for tap in range(7):
            shifted = torch.zeros_like(wave)
            offset = tap - 3
            length = wave.shape[axis]
            if abs(offset) < length:
                to, take = max(-offset, 0), max(offset, 0)
                count = length - abs(offset)
                shifted.narrow(axis, to, count).copy_(wave.narrow(axis, take, count))
            for j in range(2):
                out = out + kernel[:, j, tap, None, None] * shifted[:, j::2]
        return out

    h = mix(fc(mixer.amplitude_h, x), phase(mixer.phase_h), mixer.kernel_h, axis=3)
    w = mix(fc(mixer.amplitude_w, x), phase(mixer.phase_w), mixer.kernel_w, axis=2)
    c = fc(mixer.channel, x)
    pooled = (h + w + c).sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
    hidden = fc(mixer.reweight.fc1, pooled)
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    scores = fc(mixer.reweight.fc2, hidden).reshape(len(x), channels, 3)
    parts = scores.exp() / scores.exp().sum(dim=2, keepdim=True)
    mixed = sum(parts[:, :, k, None, None] * m for k, m in enumerate((h, w, c)))
    return fc(mixer.proj, mixed)


@pytest.mark.parametrize('size', [(5, 9), (2, 3), (1, 1)])
def test_token_mixer_equals_its_formula_in_values_and_gradients(size):
    torch.manual_seed(0)
    mixer = PhaseAwareTokenMixer(8, 'fc', dict(type='GELU')).double().eval()
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
    fields = dict(depths=[1, 1, 1, 1], dims=[8, 12, 16, 20], phase='dw', norm='BN')
    model = WaveMLP(fields)
    assert model.arch == WaveMLPArch(**fields)
    assert [i.channels for i in model.stage_info] == fields['dims']
    assert WaveMLP(asdict(ARCHS['t'])).arch == ARCHS['t']
    for change, message in (
        (dict(depths=[1, 1, 1]), r'depths=\(1, 1, 1\) must be 4 positive numbers'),
        (dict(dims=[8, 12, 16, 18]), 'multiples of 4'),
        (dict(phase='conv'), "unknown phase 'conv': expected 'fc' or 'dw'"),
        (dict(norm='LN'), "unknown norm 'LN': expected one of BN, GN"),
    ):
        with pytest.raises(ValueError, match=message):
            WaveMLP(fields | change)


def test_lean_keeps_the_input_the_projections_and_the_pre_activation():
    """Per block 1 + 5 + 1 + 4 maps, the first being the next one's here; as published, 30."""
    for lean, maps in ((True, 11), (False, 30)):
        model = WaveMLP(
            dict(depths=(1, 1, 1, 1), dims=(64,) * 4), out_indices=(0,), lean=lean
        ).train()
        block, x = model.stages[0][0], images(2, 64, 32, 32)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        held = held_bytes(lambda model=model, block=block, x=x: model.run_part(block, x))
        assert maps <= held / x.nbytes < maps + 0.1
