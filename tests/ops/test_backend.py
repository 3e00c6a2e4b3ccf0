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


def test_the_requested_backend_is_selected_and_the_previous_one_restored():
    with use_backend('reference'):
        assert current_backend() == 'reference'
        assert select('op', {'fast': fast, 'reference': reference}, torch.zeros(1)) is reference
        with use_backend('auto'):
            assert select('op', {'fast': fast, 'reference': reference}, torch.zeros(1)) is fast
        assert current_backend() == 'reference'
    assert current_backend() == 'auto'


def test_exported_graphs_use_the_reference():
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


def test_settings_are_checked_like_tensors():
    def exact(x, approximate):
        return x

    exact.unsupported = lambda x, approximate: '' if approximate == 'none' else 'it is exact'
    implementations = {'cpp': exact, 'reference': reference}
    assert select('op', implementations, torch.zeros(1), 'none') is exact
    assert select('op', implementations, torch.zeros(1), 'tanh') is reference
    with use_backend('cpp'), pytest.raises(RuntimeError, match='it is exact'):
        select('op', implementations, torch.zeros(1), 'tanh')


def test_restored_after_an_error():
    with pytest.raises(KeyError), use_backend('reference'):
        raise KeyError
    assert current_backend() == 'auto'


def test_errors_give_the_reason():
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


def test_ops_without_the_backend_choose_as_in_auto():
    with use_backend('triton'):
        assert select('op', {'fast': fast, 'reference': reference}, torch.zeros(1)) is fast
