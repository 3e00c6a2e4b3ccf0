"""What is known of the graph being traced, and what autograd tracks."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmwave.ops.graphs import (
    is_counted,
    is_dynamic,
    is_exporting,
    is_tracing,
    needs_grad,
    static_size,
)
from tests.contracts import images
from tests.graphs import recorded


def test_without_a_graph():
    assert not is_tracing()
    assert not is_exporting()
    assert not is_dynamic(3, 4)
    assert static_size(3) == 3


@pytest.mark.parametrize('dynamic', [False, True])
def test_while_compiling(dynamic):
    seen = {}

    def run(x):
        seen.update(
            tracing=is_tracing(),
            exporting=is_exporting(),
            rows=is_dynamic(x.shape[0]),
            any=is_dynamic(*x.shape),
            columns=is_dynamic(x.shape[1]),
        )
        return x + 1

    recorded(run, images(3, 5), open_axes=(0,) if dynamic else ())
    wanted = dict(tracing=True, exporting=False, rows=dynamic, any=dynamic, columns=False)
    assert seen == wanted


def test_a_static_size_specialises_the_graph():
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(
        lambda x: x.sum() * static_size(x.shape[0]), backend=backend, dynamic=True
    )
    for rows in (3, 5, 5):
        x = images(rows, 4)
        assert torch.equal(compiled(x), x.sum() * rows)
    assert len(graphs) == 2


def test_while_exporting():
    seen = []

    class Module(torch.nn.Module):
        def forward(self, x):
            seen.append((is_tracing(), is_exporting()))
            return x + 1

    torch.export.export(Module(), (images(2),))
    torch.jit.trace(Module(), images(2), check_trace=False)
    assert set(seen) == {(True, True)}


def test_while_operators_are_counted():
    seen = []

    class Module(torch.nn.Module):
        def forward(self, x):
            seen.append(is_counted())
            return x + 1

    torch.jit.trace(Module(), images(2), check_trace=False)
    with FlopCounterMode(display=False):
        Module()(images(2))
    assert set(seen) == {True}
    # A graph of torch.compile or export may be specialised to what is true here: it stays as it is.
    seen.clear()
    Module()(images(2))
    torch.export.export(Module(), (images(2),))
    recorded(Module(), images(2))
    assert set(seen) == {False}


def test_what_autograd_tracks():
    x, leaf = images(2), images(2).requires_grad_()
    assert needs_grad(x, None, leaf)
    assert not needs_grad(x, None)
    with torch.no_grad():
        assert not needs_grad(leaf)
