"""PosMLP in deploy form: kernels that are computed once, parts of a map, split convolutions."""

import copy

import pytest
import torch
from torch import nn

from mmwave.deploy import to_deploy
from mmwave.models.backbones.posmlp import Downsample, PositionalGate
from mmwave.models.deployed import posmlp
from mmwave.models.deployed.posmlp import MAX_KERNELS, KernelGate, SplitDownsample
from mmwave.models.layers.window_mixing import Windows
from mmwave.ops import positional_kernel
from tests.contracts import images, relative_error, total
from tests.models.deployed.forms import model, run, trained_size


def deployed(part, form):
    """A part in deploy form, with its values."""
    made = form(copy.deepcopy(part)).to(next(part.parameters()))
    made.load_state_dict(form.fold(part))
    return made.eval()


@pytest.mark.parametrize('mode', ['window', 'resize'])
def test_kernels_of_a_gate_are_computed_once_and_never_for_autograd(mode, monkeypatch):
    network, _ = to_deploy(model('PosMLP', grid_mode=mode))
    made = []
    for name in ('_cropped', '_evaluated'):
        make = getattr(KernelGate, name)

        def counted(self, window, *sources, make=make):
            made.append(any(source.requires_grad for source in sources))
            return make(self, window, *sources)

        monkeypatch.setattr(KernelGate, name, counted)
    x = images(1, 3, 100, 37).double()
    first = run(network, x)
    count = len(made)
    assert count > 0
    assert not any(made)
    assert all(torch.equal(a, b) for a, b in zip(run(network, x), first, strict=True))
    assert len(made) == count
    total(network(x)).backward()
    assert all(made[count:])
    assert len(made) == 2 * count
    assert all(p.grad is not None for p in network.parameters())


def test_a_gate_caches_kernels_of_a_few_windows():
    torch.manual_seed(0)
    gate = KernelGate(PositionalGate(Windows((4, 4), resize=True), 2)).eval()
    with torch.no_grad():
        kept = gate.kernels((8, 8))[0]
        for side in range(1, MAX_KERNELS):
            gate.kernels((side, side))
        assert gate.kernels((8, 8))[0] is kept
        for side in range(1, MAX_KERNELS + 1):
            gate.kernels((side, side))
        assert gate.kernels((8, 8))[0] is not kept


def test_kernels_of_smaller_windows_are_cut_out_of_the_trained_one_s():
    """What lies outside the map is zero: its columns are left out, and nothing is normalised."""
    torch.manual_seed(0)
    source = PositionalGate(Windows((3, 4)), 2).double()
    nn.init.normal_(source.bias)
    gate = deployed(source, KernelGate)
    whole = positional_kernel(source.centers, source.spreads, (3, 4))
    inside = [4 * row + column for row in range(2) for column in range(3)]
    with torch.no_grad():
        kernel, bias = gate.kernels((2, 3))
    assert torch.equal(kernel, whole[:, inside][:, :, inside])
    assert torch.equal(bias, source.bias[:, inside])


@pytest.mark.parametrize('multiple', [1, 2, 3])
def test_downsamples_of_several_outputs_of_each_input(multiple):
    torch.manual_seed(0)
    source = Downsample(4, 4 * multiple).double()
    split = deployed(source, SplitDownsample)
    x = images(2, 5, 6, 4).double()
    assert relative_error(run(split, x), run(source, x)) < 1e-14


@pytest.mark.parametrize('chunk', [1, 20, 10**6])
def test_blocks_compute_some_windows_at_a_time(chunk, monkeypatch):
    monkeypatch.setattr(posmlp, 'CPU_CHUNK', chunk)
    made = model('PosMLP')
    x = images(2, 3, 64, 96).double()
    for got, wanted in zip(run(to_deploy(made)[0], x), run(made, x), strict=True):
        assert relative_error(got, wanted) < 1e-13


@pytest.mark.export
@pytest.mark.parametrize('mode', ['resize', 'strict'])
def test_a_graph_for_one_size(mode):
    made = model('PosMLP', grid_mode=mode, out_indices=(1,))
    network, _ = to_deploy(made)
    size = (60, 40) if mode == 'resize' else trained_size('PosMLP')
    x = images(1, 3, *size).double()
    with torch.no_grad():
        graph = torch.export.export(network, (x,)).module()
    for got, wanted in zip(run(graph, x), run(made, x), strict=True):
        assert relative_error(got, wanted) < 1e-13
