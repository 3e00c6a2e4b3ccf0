"""Bytes of forward passes and training steps, compared with those computed by hand."""

import torch

from mmwave.inspect.memory import held_bytes, peak_bytes, saved_bytes


def test_saved_bytes_count_each_storage_once():
    weight = torch.randn(64, 32, requires_grad=True)
    x = torch.randn(10, 64)

    def forward():
        y = x @ weight  # keeps x
        return y.exp() + y.view(-1).sin().view_as(y)  # exp keeps its result, sin its input

    assert saved_bytes(forward) == 4 * (10 * 64 + 2 * 10 * 32)
    assert saved_bytes(forward, apart_from=[x]) == 4 * 2 * 10 * 32
    with torch.no_grad():
        assert saved_bytes(forward) == 0


def test_peak_is_the_most_held_at_once():
    def step():
        a = torch.empty(1000, dtype=torch.uint8)
        b = torch.empty(500, dtype=torch.uint8)
        del a
        c = torch.empty(700, dtype=torch.uint8)
        del b, c

    assert peak_bytes(step) == 1500


def test_peak_counts_temporaries_and_gradients():
    weight = torch.randn(64, 32, requires_grad=True)
    x = torch.randn(10, 64)

    def step():
        torch.autograd.backward([x @ weight], [torch.ones(10, 32)])
        weight.grad = None

    # Output and its gradient, then the weight's gradient beside them.
    assert peak_bytes(step) == 4 * (2 * 10 * 32 + 64 * 32)


def test_held_bytes_sees_what_hooks_hide():
    x, w = torch.zeros(10, 64, requires_grad=True), torch.zeros(32, 64, requires_grad=True)

    def forward():
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            return x.exp() @ w.t()

    assert held_bytes(forward) == 4 * (10 * 64 + 10 * 32)  # what is multiplied, and the result
    with torch.no_grad():
        assert held_bytes(forward) == 4 * 10 * 32
