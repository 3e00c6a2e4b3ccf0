"""AS-MLP against what the published code computes and against its formula written out."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmwave.inspect.memory import held_bytes
from mmwave.models import ASMLP
from mmwave.models.backbones import pretrained
from mmwave.models.backbones.asmlp import (
    ARCHS,
    ASMLPArch,
    ASMLPBlock,
    AxialShift,
    PatchMerging,
    shift_offsets,
)
from tests import parity
from tests.contracts import images, randomise_norms, relative_error
from tests.convert import published
from tests.families import TINY

GOLDENS = json.loads((Path(__file__).parents[2] / 'data/asmlp-goldens.json').read_text())


@pytest.mark.parametrize('case', GOLDENS)
def test_computes_what_the_release_computes(case, tmp_path):
    golden = GOLDENS[case]
    classes = None if 'outputs' in golden else 16
    shapes = published.asmlp(**asdict(ARCHS[golden['arch']]), classes=classes)
    model, state = parity.converted(golden, shapes, 'ASMLP', tmp_path)
    parity.assert_outputs(model, state, golden, 1e-12)


# Parameters of the classifier with 1000 classes and of the dense backbone, computed with the
# release's code (svip-lab/AS-MLP models/as_mlp.py at dd1eb4f), and MACs at 224 x 224 as its README
# rounds them. It counts some for the norms, half a percent; here none are.
@pytest.mark.parametrize(
    ('arch', 'parameters', 'macs', 'dense'),
    [
        ('t', 28.283e6, 4.4e9, 27.515e6),
        ('s', 49.595e6, 8.5e9, 48.827e6),
        ('b', 87.753e6, 15.2e9, 86.730e6),
    ],
)
def test_parameters_and_macs_are_the_release_s(arch, parameters, macs, dense):
    dim = ARCHS[arch].dims[-1]
    with torch.device('meta'):
        backbone = ASMLP(arch, out_indices=(3,)).eval()
        head = torch.nn.Linear(dim, 1000)
        with FlopCounterMode(display=False) as counter:
            head(backbone(torch.empty(1, 3, 224, 224))[0].mean(dim=(2, 3)))
        pyramid = ASMLP(arch)
    counted = sum(p.numel() for m in (backbone, head) for p in m.parameters())
    assert abs(counted - parameters) <= 0.5e3
    assert abs(counter.get_total_flops() / 2 - macs) <= 0.9e8
    assert abs(sum(p.numel() for p in pyramid.parameters()) - dense) <= 0.5e3


def test_odd_sizes_are_rounded_up():
    outputs = ASMLP(TINY['ASMLP']).eval()(images(1, 3, 200, 333))
    assert [tuple(o.shape[2:]) for o in outputs] == [(50, 84), (25, 42), (13, 21), (7, 11)]


def test_padding_enters_the_statistics():
    """As in the published segmentation code: an image and the same one padded are one to it."""
    model = ASMLP(TINY['ASMLP']).double().eval()
    x = images(1, 3, 53, 70).double()
    padded = torch.nn.functional.pad(x, (0, 96 - 70, 0, 64 - 53))
    for got, wanted in zip(model(x), model(padded[:, :, :56, :72]), strict=True):
        assert torch.equal(got, wanted)
    merging = model.downsamples[0]
    x = images(2, 8, 5, 7).double()
    even = torch.nn.functional.pad(x, (0, 1, 0, 1))
    assert torch.equal(merging(x), merging(even))


@pytest.mark.parametrize(
    ('channels', 'size', 'wanted'),
    [
        (10, 5, (2, 2, 1, 1, 0, 0, -1, -1, -2, -2)),
        (8, 3, (1, 1, 1, 0, 0, 0, -1, -1)),  # the last group is smaller
        (6, 5, (2, 2, 1, 1, 0, 0)),  # two groups are missing
        (3, 5, (2, 1, 0)),  # fewer channels than groups
        (1, 7, (3,)),
        (4, 1, (0, 0, 0, 0)),
    ],
)
def test_groups_of_channels_and_their_offsets(channels, size, wanted):
    assert shift_offsets(channels, size) == wanted


def gelu(t):
    return 0.5 * t * (1 + torch.erf(t / 2**0.5))


def group_norm(norm, t):
    flat = t.flatten(1)
    mean, var = flat.mean(dim=1), flat.var(dim=1, unbiased=False)
    t = (t - mean[:, None, None, None]) / (var[:, None, None, None] + 1e-5).sqrt()
    return t * norm.weight[:, None, None] + norm.bias[:, None, None]


def conv(layer, t):
    out = torch.einsum('oc,nchw->nohw', layer.weight.flatten(1), t)
    return out + layer.bias[:, None, None]


def shifted(x, size, axis):
    """The shift from the paper's text: group by group, position by position."""
    out = torch.zeros_like(x)
    channels = x.shape[1]
    group = (channels + size - 1) // size
    for c in range(channels):
        step = c // group - size // 2
        for p in range(x.shape[axis]):
            if 0 <= p - step < x.shape[axis]:
                out[:, c].select(axis - 1, p).copy_(x[:, c].select(axis - 1, p - step))
    return out


def written_out(block: ASMLPBlock, size: int, x: torch.Tensor) -> torch.Tensor:
    """A block from its parameters, without modules and ops of ours."""
    mixer = block.mixer
    t = gelu(group_norm(mixer.norm1, conv(mixer.conv1, group_norm(block.norm1, x))))
    across = gelu(conv(mixer.conv_w, shifted(t, size, 3)))
    down = gelu(conv(mixer.conv_h, shifted(t, size, 2)))
    x = x + conv(mixer.conv2, group_norm(mixer.norm2, across + down))
    hidden = gelu(conv(block.mlp.fc1, group_norm(block.norm2, x)))
    return x + conv(block.mlp.fc2, hidden)


@pytest.mark.parametrize('shift_size', [1, 3, 5])
@pytest.mark.parametrize(
    ('channels', 'height', 'width'), [(8, 5, 9), (12, 1, 2), (3, 4, 3), (7, 1, 1)]
)
def test_a_block_equals_its_formula_in_values_and_gradients(channels, height, width, shift_size):
    torch.manual_seed(0)
    block = ASMLPBlock(
        channels, 2, shift_size=shift_size, drop_path=0.0, act_cfg=dict(type='GELU')
    ).double()
    randomise_norms(block)
    x = images(2, channels, height, width).double().requires_grad_()
    inputs = [x, *block.parameters()]
    pull = images(2, channels, height, width, seed=7).double()
    results = []
    for output in (block(x), written_out(block, shift_size, x)):
        results.append((output, torch.autograd.grad(output, inputs, pull)))
    (got, got_grads), (wanted, wanted_grads) = results
    assert relative_error(got, wanted) < 1e-13
    names = ['image', *(n for n, _ in block.named_parameters())]
    scale = max(g.abs().max() for g in wanted_grads)
    for name, a, b in zip(names, got_grads, wanted_grads, strict=True):
        # Against the largest gradient of all: some are zero by construction on a single position.
        assert ((a - b).abs().max() / scale).item() < 1e-12, name


def test_neighbours_are_merged_column_by_column():
    merging = PatchMerging(1, 4)
    torch.nn.init.eye_(merging.reduction.weight.data.view(4, 4))
    merging.norm = torch.nn.Identity()
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert merging(x)[0].flatten(1).T.tolist() == [[0, 3, 1, 4], [2, 5, 0, 0]]
    assert merging.reduction.bias is None


def test_shift_size_is_the_mixer_s():
    for size in (3, 5):
        model = ASMLP(TINY['ASMLP'], shift_size=size)
        for stage, dim in zip(model.stages, TINY['ASMLP']['dims'], strict=True):
            assert stage[0].mixer.offsets == shift_offsets(dim, size)
    for size in (0, 4, -1, 2.5, '5'):
        with pytest.raises(ValueError, match=f'shift_size={size} must be an odd number'):
            ASMLP(TINY['ASMLP'], shift_size=size)


@pytest.mark.parametrize(
    ('noted', 'mine', 'said'), [({}, 5, 0), ({}, 3, 1), (dict(shift_size=3), 5, 1), ({}, 7, 1)]
)
def test_weights_of_another_shift_size_are_loaded_with_a_warning(
    tmp_path, noted, mine, said, monkeypatch
):
    trained = ASMLP(TINY['ASMLP'])
    meta = {'backbone': {'type': 'mmwave.ASMLP', 'arch': TINY['ASMLP'], **noted}}
    path = tmp_path / 'weights.pth'
    torch.save({'state_dict': trained.state_dict(), 'meta': meta}, path)
    model = ASMLP(TINY['ASMLP'], shift_size=mine)
    logged = []
    monkeypatch.setattr(pretrained, 'print_log', lambda text, **how: logged.append((text, how)))
    model.load_pretrained(str(path))
    warned = [text for text, how in logged if how.get('level') == logging.WARNING]
    assert len(warned) == said
    if said:
        wanted = f'shift_size={noted.get("shift_size", 5)}, this one has shift_size={mine}'
        assert wanted in warned[0]
    assert torch.equal(model.stem.conv.weight, trained.stem.conv.weight)
    # Other settings are still refused.
    with pytest.raises(ValueError, match='act_cfg'):
        ASMLP(TINY['ASMLP'], act_cfg=dict(type='ReLU')).load_pretrained(str(path))


def test_every_norm_is_of_one_group():
    for part in ASMLP(TINY['ASMLP']).modules():
        if isinstance(part, torch.nn.GroupNorm):
            assert (part.num_groups, part.eps) == (1, 1e-5)
    assert isinstance(ASMLP(TINY['ASMLP']).stages[0][0].mixer, AxialShift)


def test_arch_as_a_dict_and_its_checks():
    fields = dict(depths=[1, 1, 1, 1], dims=[8, 12, 16, 20], mlp_ratio=2)
    model = ASMLP(fields)
    assert model.arch == ASMLPArch(**fields)
    assert [i.channels for i in model.stage_info] == fields['dims']
    for change, message in (
        (dict(depths=[1, 1, 1]), r'depths=\(1, 1, 1\) must be 4 positive numbers'),
        (dict(dims=[8, 12, 16, 0]), r'dims=\(8, 12, 16, 0\) must be 4 positive numbers'),
        (dict(mlp_ratio=0), 'mlp_ratio=0 must be a positive whole number'),
    ):
        with pytest.raises(ValueError, match=message):
            ASMLP(fields | change)


def test_lean_keeps_the_input_the_projections_and_the_pre_activations():
    """Per block 1 + 4 + 1 + 4 maps, the first being the next one's here; as published, 20."""
    for lean, maps in ((True, 10), (False, 20)):
        model = ASMLP(
            dict(depths=(1, 1, 1, 1), dims=(64,) * 4), out_indices=(0,), lean=lean
        ).train()
        block, x = model.stages[0][0], images(2, 64, 32, 32)
        x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
        held = held_bytes(lambda model=model, block=block, x=x: model.run_part(block, x))
        assert maps <= held / x.nbytes < maps + 0.1
