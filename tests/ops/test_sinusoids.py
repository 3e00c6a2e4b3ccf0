"""Position codes against their formula, and which of them are cached."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mmwave.ops.sinusoids import CACHED, sinusoids

CPU = torch.device('cpu')


def code(position: int, channel: int, channels: int) -> float:
    """A sinusoid of Vaswani et al."""
    angle = position / 10000 ** (channel // 2 * 2 / channels)
    return math.cos(angle) if channel % 2 else math.sin(angle)


@pytest.mark.parametrize('device', [None, CPU])
@pytest.mark.parametrize('count', [1, 5, 197])
def test_rounded_once(count, device):
    table = sinusoids(count, 12, device)
    wanted = [[code(k, c, 12) for c in range(12)] for k in range(count)]
    assert table.dtype == torch.float32
    assert torch.equal(table, torch.tensor(wanted, dtype=torch.float64).float())


def test_many_positions_are_as_exact():
    """Counted through: a longer table begins as a shorter one."""
    table = sinusoids(5000, 64)
    assert torch.equal(table[:197], sinusoids(197, 64))
    wanted = [code(4999, c, 64) for c in range(64)]
    assert torch.equal(table[-1], torch.tensor(wanted, dtype=torch.float64).float())


def test_the_last_few_tables_are_cached():
    first = sinusoids(7, 4, CPU)
    assert sinusoids(7, 4, CPU) is first
    assert sinusoids(7, 4) is not sinusoids(7, 4)
    for count in range(8, 8 + CACHED):
        sinusoids(count, 4, CPU)
    assert sinusoids(7, 4, CPU) is not first


def test_autograd_can_use_what_inference_mode_asked_for():
    with torch.inference_mode():
        sinusoids(11, 6, CPU)
    table = sinusoids(11, 6, CPU)
    assert not table.is_inference()
    x = torch.ones(11, 6, requires_grad=True)
    (x * table).sum().backward()
    assert torch.equal(x.grad, table)


def test_what_is_made_for_a_graph_or_under_a_mode_is_not_cached():
    with FakeTensorMode():
        assert type(sinusoids(13, 8, CPU)) is not torch.Tensor
    traced = torch.jit.trace(lambda x: x + sinusoids(x.shape[0], 8, x.device), torch.ones(13, 8))
    program = torch.export.export(_Added(), (torch.ones(13, 8),)).module()
    table = sinusoids(13, 8, CPU)
    assert type(table) is torch.Tensor
    for graph in (traced, program):
        assert torch.equal(graph(torch.zeros(13, 8)), table)


def test_on_the_device_that_is_asked_for():
    assert sinusoids(3, 4, torch.device('meta')).is_meta
    with torch.device('meta'):
        assert sinusoids(3, 4).is_meta
        assert not sinusoids(3, 4, CPU).is_meta


class _Added(torch.nn.Module):
    def forward(self, x):
        return x + sinusoids(x.shape[0], x.shape[1], x.device)
