"""Multiply-accumulates as counters of other projects see them, compared with ours.

They know convolutions, linear layers and products of two matrices by torch's names for them, and
take every other operator for free: a family whose products go by another name would seem cheap.
"""

from collections import Counter
from math import prod

import pytest
import torch
from mmengine.analysis import get_model_complexity_info
from mmengine.analysis.complexity_analysis import FlopAnalyzer
from torch.utils._python_dispatch import TorchDispatchMode

from mmwave.deploy import to_deploy
from mmwave.inspect import count_macs
from mmwave.ops.extension import without_kernels
from tests.contracts import build, images
from tests.families import SMALLEST, TINY

FORMS = ('train', 'deploy')
# Windows of all stages fill their maps: PosMLP's deploy form cuts windows at the edge of a map, and
# pads them in a graph that is traced.
SIDES = (64, 192)
# Beside these mmengine counts a few operations for each value of norms and of pooled maps.
PRODUCTS = ('addmm', 'bmm', 'conv', 'einsum', 'linear', 'matmul', 'mm')


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
