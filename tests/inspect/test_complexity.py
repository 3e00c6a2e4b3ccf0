"""Parameters and multiply-accumulates, compared with those computed by hand."""

import torch
from torch import nn

from mmwave.inspect.complexity import count_macs, count_params
from mmwave.models import WaveMLP
from mmwave.ops import current_backend


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
