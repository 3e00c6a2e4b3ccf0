"""Parameters and multiply-accumulates, compared with those by hand and by other counters.

The counters of other projects know convolutions, linear layers and products of two matrices by
torch's names for them, and take every other operator for free: a family whose products go by
another name would seem cheap.
"""

from collections import Counter
from math import prod

import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.analysis.complexity_analysis import FlopAnalyzer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from mmwave.deploy import to_deploy
from mmwave.inspect.complexity import count_macs, count_params
from mmwave.models import WaveMLP
from mmwave.ops import current_backend
from mmwave.ops.extension import without_kernels
from tests.contracts import build, images
from tests.families import SMALLEST, TINY

FORMS = ('train', 'deploy')
# Windows of all stages fill their maps: PosMLP's deploy form cuts windows at the edge of a map, and
# pads them in a graph that is traced.
SIDES = (64, 192)
# Beside these mmengine counts a few operations for each value of norms and of pooled maps.
PRODUCTS = ('addmm', 'bmm', 'conv', 'einsum', 'linear', 'matmul', 'mm')


def test_parameters():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 4, bias=False))
    net[2].weight.requires_grad_(False)  # frozen ones count, buffers do not
    assert count_params(net) == (8 * 27 + 8) + 2 * 8 + 8 * 4


def test_macs_of_a_forward_pass():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 5, 5, groups=8)
    )
    images = torch.randn(2, 3, 10, 15)
    assert count_macs(net.eval(), images) == 2 * (10 * 15 * 8 * 27 + 2 * 3 * 8 * 25)


def test_macs_are_those_of_the_reference(monkeypatch):
    seen = []
    forward = WaveMLP.forward

    def watched(self, x):
        seen.append(current_backend())
        return forward(self, x)

    monkeypatch.setattr(WaveMLP, 'forward', watched)
    model = WaveMLP(dict(vars(WaveMLP.archs['t']), depths=(1,) * 4)).eval()
    assert count_macs(model, torch.randn(1, 3, 32, 32)) > 0
    assert seen == ['reference']


class Products(TorchDispatchMode):
    """Count as ptflops' ``aten`` backend does, apart from its additions of biases."""

    def __init__(self):
        super().__init__()
        self.macs = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ('mm', 'bmm', 'addmm'):
            left, right = args[-2:]
            self.macs += left.numel() * right.shape[-1]
        elif name == 'convolution':
            self.macs += prod(args[1].shape) * len(out) * prod(out.shape[2:])
        return out


def model_of(name, arch, form):
    model = build(name, arch).eval()
    return model if form == 'train' else to_deploy(model)[0]


def counted(model, x):
    """What mmengine counts: the products, and all."""
    analyzer = FlopAnalyzer(model, (x,)).unsupported_ops_warnings(False)
    found = Counter(analyzer.by_operator())
    info = get_model_complexity_info(model, inputs=(x,), show_table=False, show_arch=False)
    assert info['flops'] == sum(found.values())
    return sum(found[kind] for kind in PRODUCTS), info['flops']


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', TINY)
def test_every_product_is_seen(name, form):
    model = model_of(name, TINY[name], form)
    x = images(2, 3, *(model.size_constraint.only or SIDES))
    ours = count_macs(model, x)
    assert counted(model, x)[0] == ours
    with torch.no_grad(), Products() as products:
        model(x)
    assert products.macs == ours


@pytest.mark.slow
@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('name', SMALLEST)
def test_published_sizes(name, form):
    """The counters' own extras are 1.2 % at most, of gMLP's and EAMLP's norms."""
    model = model_of(name, SMALLEST[name], form)
    x = images(1, 3, *(model.size_constraint.only or (224, 224)))
    ours = count_macs(model, x)
    products, all_of_it = counted(model, x)
    assert products == ours
    assert ours <= all_of_it < 1.012 * ours
    with without_kernels():
        assert counted(model, x) == (products, all_of_it)
