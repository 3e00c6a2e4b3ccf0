"""Choosing the implementation of an op."""

import pytest
import torch

from mmwave.ops import current_backend, use_backend
from mmwave.ops.backend import select


def reference(x):
    return 'reference'


def fast(x):
    return 'fast'


fast.unsupported = lambda x: '' if x.dtype is torch.float32 else f'{x.dtype} is not supported'


def test_auto_prefers_the_first_that_can_run():
    implementations = {'fast': fast, 'reference': reference}
    assert current_backend() == 'auto'
    assert select('op', implementations, torch.zeros(1)) is fast
    assert select('op', implementations, torch.zeros(1).double()) is reference


def test_an_asked_for_backend_is_taken_and_the_old_one_restored():
    with use_backend('reference'):
        assert current_backend() == 'reference'
        assert select('op', {'fast': fast, 'reference': reference}, torch.zeros(1)) is reference
        with use_backend('auto'):
            assert select('op', {'fast': fast, 'reference': reference}, torch.zeros(1)) is fast
        assert current_backend() == 'reference'
    assert current_backend() == 'auto'


def test_graphs_for_others_are_of_the_reference():
    seen = []

    class Model(torch.nn.Module):
        def forward(self, x):
            chosen = select('op', {'fast': fast, 'reference': reference}, x)
            seen.append(chosen)
            return x + 1

    torch.export.export(Model(), (torch.zeros(2),))
    torch.jit.trace(Model(), torch.zeros(2), check_trace=False)
    assert len(seen) >= 2
    assert set(seen) == {reference}


def test_restored_after_an_error():
    with pytest.raises(KeyError), use_backend('reference'):
        raise KeyError
    assert current_backend() == 'auto'


def test_refusals_give_the_reason():
    with (
        pytest.raises(ValueError, match="unknown backend 'cuda': expected one of auto, reference"),
        use_backend('cuda'),
    ):
        pass
    with (
        use_backend('reference'),
        pytest.raises(
            RuntimeError, match=r"'reference' cannot run here: torch\.float64 is not supported"
        ),
    ):
        select('op', {'reference': fast}, torch.zeros(1).double())


def test_ops_without_the_backend_choose_for_themselves():
    with use_backend('triton'):
        assert select('op', {'fast': fast, 'reference': reference}, torch.zeros(1)) is fast
