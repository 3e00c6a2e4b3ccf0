"""``lean``: the same gradients while less is kept."""

import gc

import pytest
import torch
from torch import nn

from mmwave.inspect.memory import saved_bytes
from mmwave.models.layers.lean import _Segment, keep, lean, runner, without_lean


class Block(nn.Module):
    """A channel MLP behind a norm, run by ``run``."""

    def __init__(self, run, norm=None):
        super().__init__()
        torch.manual_seed(0)
        self.run = run
        self.norm = norm or nn.LayerNorm(8)
        self.fc1, self.act, self.fc2 = nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 8)

    def forward(self, x):
        return x + self.run(self.fc2, self.act, self.run(self.fc1, self.norm, x))


def inputs():
    return torch.randn(100, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()


def gradients(block, x, times=1):
    loss = block(x).square().sum()
    for k in range(times):
        loss.backward(retain_graph=k + 1 < times)
    return [x.grad, *(p.grad for p in block.parameters())]


def saved(block, x):
    return saved_bytes(lambda: block(x), apart_from=block.parameters()) / x.nbytes


def test_gradients_are_the_same_bit_for_bit():
    a, b = gradients(Block(keep), inputs()), gradients(Block(lean), inputs())
    assert all(g.abs().sum() > 0 for g in a)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def test_what_is_laid_otherwise_the_second_time():
    """As it may be by code that looks at whether gradients are recorded."""

    def turned(x):
        return x.t() if torch.is_grad_enabled() else x.t().contiguous()

    found = []
    for run in (keep, lean):
        torch.manual_seed(0)
        x, linear = inputs(), nn.Linear(100, 8)
        run(linear, turned, x).square().sum().backward()
        found.append((x.grad, linear.weight.grad))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_keeps_the_input_and_the_pre_activation():
    x = inputs()
    # Of 8 channels: x, the norm's output, 32 before and 32 behind the activation, mean and spread.
    assert saved(Block(keep), x) == 1 + 1 + 4 + 4 + 2 / 8
    assert saved(Block(lean), x) == 1 + 4
    with without_lean():
        assert saved(Block(lean), x) == saved(Block(keep), x)


def test_one_preparation_for_several_products():
    linears = [nn.Linear(8, 8) for _ in range(3)]
    found = []
    for run, calls in ((keep, 1), (lean, 2)):
        x, seen = inputs(), []

        def prepare(x, seen=seen):
            seen.append(1)
            return x.exp()

        outputs = run(lambda z: [linear(z) for linear in linears], prepare, x)
        sum(o.square().sum() for o in outputs).backward()
        assert len(seen) == calls
        found.append(x.grad)
    assert torch.equal(*found)


def test_views_of_what_is_prepared_are_computed_again_too():
    x = inputs()
    weight = torch.randn(3, 8, requires_grad=True)
    found = []
    for run in (keep, lean):
        y = run(lambda z: z[::2].t()[1:5].matmul(z[1::2]) @ weight.t(), torch.sin, x)
        found.append(torch.autograd.grad(y.square().sum(), [x, weight]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_backward_twice():
    once, twice = gradients(Block(lean), inputs()), gradients(Block(lean), inputs(), times=2)
    assert all(torch.equal(2 * a, b) for a, b in zip(once, twice, strict=True))


@pytest.mark.parametrize('frozen', [False, True])
def test_batch_norms_update_their_statistics_once(frozen):
    found = []
    for run in (keep, lean):
        block = Block(run, nn.BatchNorm1d(8))
        block.norm.train(not frozen)
        found.append((gradients(block, inputs()), block.norm.state_dict()))
    (grads_a, state_a), (grads_b, state_b) = found
    assert all(torch.equal(a, b) for a, b in zip(grads_a, grads_b, strict=True))
    assert all(torch.equal(state_a[k], state_b[k]) for k in state_a)
    assert state_b['num_batches_tracked'] == (0 if frozen else 1)


def test_only_what_asks_for_gradients_gets_them():
    block = Block(lean)
    block.norm.requires_grad_(False)
    x = inputs().detach()
    block(x).sum().backward()
    assert block.norm.weight.grad is None
    assert block.fc1.weight.grad.abs().sum() > 0
    with torch.no_grad():
        assert not block(x).requires_grad


def test_under_autocast():
    found, sizes = [], []
    for run in (keep, lean):
        block, x = Block(run), inputs()
        with torch.autocast('cpu', dtype=torch.bfloat16):
            sizes.append(saved(block, x))
            y = block(x)
        y.float().square().sum().backward()
        found.append([y, x.grad, *(p.grad for p in block.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert sizes[1] < sizes[0] / 1.8


def test_nothing_stays_behind():
    """No cycles: what is kept goes with the graph, not when the collector comes."""

    def segments():
        return sum(type(o) is _Segment for o in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = segments()
        y = Block(lean)(inputs())
        assert segments() == before + 2
        del y
        assert segments() == before
        Block(lean)(inputs()).sum().backward()
        assert segments() == before
    finally:
        gc.enable()


def test_compiles_to_one_graph():
    block, x = Block(lean), inputs()
    torch.compiler.reset()
    graph = torch.compile(block, backend='aot_eager', fullgraph=True)
    wanted = gradients(Block(lean), inputs())
    assert all(
        torch.allclose(a, b, rtol=1e-5, atol=1e-5)
        for a, b in zip(gradients(graph, x), wanted, strict=True)
    )


def test_runner():
    assert runner(True) is lean
    assert runner(False) is keep
