"""The rate of matrix products, and the products of a model, by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmwave.analysis.roofline import forward_macs, gemm, gemm_peak
from mmwave.models import WaveMLP
from mmwave.ops import current_backend


def test_the_peak_is_that_of_the_fastest_products():
    assert gemm_peak([4.0, 2.0, 8.0], side=8) == 2 * 8**3 / 2


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_the_measure_is_one_product(dtype):
    with FlopCounterMode(display=False) as counter:
        product = gemm(dtype, 'cpu', side=16)()
    assert (product.shape, product.dtype) == ((16, 16), dtype)
    assert counter.get_total_flops() == 2 * 16**3


def test_macs_of_a_forward_pass():
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 5, 5, groups=8)
    )
    images = torch.randn(2, 3, 10, 15)
    assert forward_macs(net.eval(), images) == 2 * (10 * 15 * 8 * 27 + 2 * 3 * 8 * 25)


def test_macs_are_those_of_the_reference(monkeypatch):
    seen = []
    forward = WaveMLP.forward

    def watched(self, x):
        seen.append(current_backend())
        return forward(self, x)

    monkeypatch.setattr(WaveMLP, 'forward', watched)
    model = WaveMLP(dict(vars(WaveMLP.archs['t']), depths=(1,) * 4)).eval()
    assert forward_macs(model, torch.randn(1, 3, 32, 32)) > 0
    assert seen == ['reference']
