"""What counts as equal, and whether an op's backends are."""

import importlib

import pytest
import torch

from mmwave.ops._phase_mix import phase_mix_reference
from speed.equality import (
    COARSE,
    SLACK,
    Unequal,
    check_phase_mix,
    inequality,
    relative_error,
)


def test_the_bar_is_the_standards_own_error():
    dtype, nan = torch.float32, float('nan')
    eps = torch.finfo(dtype).eps
    for error, standard in ((SLACK * 1e-6, 1e-6), (eps, 0.0)):
        assert inequality(error, standard, dtype) == ''
    for error, standard in ((SLACK * 1.01e-6, 1e-6), (1e-6, 0.0), (nan, 1e-6), (1e-9, nan)):
        assert 'is above' in inequality(error, standard, dtype)
    assert inequality(COARSE, 1e-6, dtype, at_least=COARSE) == ''
    assert 'is above' in inequality(1.1 * COARSE, 1e-6, dtype, at_least=COARSE)
    assert 'is above' in inequality(1e-9, nan, dtype, at_least=COARSE)


def test_relative_error_is_that_of_the_worst_tensor():
    wanted = {'a': torch.tensor([3.0, 4.0]), 'b': torch.tensor([10.0, 0.0])}
    got = {'a': torch.tensor([3.0, 4.5]), 'b': torch.tensor([10.0, 0.5])}
    assert relative_error(got, wanted) == pytest.approx(0.1)
    got['a'][0] = float('nan')
    assert relative_error(got, wanted) != relative_error(got, wanted)


@pytest.mark.parametrize(
    'got', [{}, {'a': torch.ones(2), 'b': torch.ones(2)}, {'a': torch.ones(1)}]
)
def test_other_shapes_are_another_function(got):
    with pytest.raises(Unequal, match='instead of'):
        relative_error(got, {'a': torch.ones(2)})


def wrong_backend(monkeypatch, factor):
    """A second backend of phase_mix whose gradients alone are off by ``factor``."""

    def fast(*tensors, split):
        tensors = list(tensors)
        tensors[1] = tensors[1] * factor - (tensors[1] * (factor - 1)).detach()
        return phase_mix_reference(*tensors, split=split)

    # The function has the module's name.
    module = importlib.import_module('mmwave.ops._phase_mix')
    both = {'torch': fast, 'reference': phase_mix_reference}
    monkeypatch.setattr(module, '_IMPLEMENTATIONS', both)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_backends_of_phase_mix_must_agree(kernels, monkeypatch, dtype):
    check_phase_mix(dtype)
    wrong_backend(monkeypatch, 1.0)
    check_phase_mix(dtype)
    wrong_backend(monkeypatch, 1.1)
    with pytest.raises(Unequal, match=r"phase_mix: backend '(auto|torch)', .* is above"):
        check_phase_mix(dtype)


def test_backends_that_cannot_run_here_are_left_out_and_broken_ones_are_not(monkeypatch):
    def fast(*tensors, split):
        raise RuntimeError('crashed')

    module = importlib.import_module('mmwave.ops._phase_mix')
    both = {'torch': fast, 'reference': phase_mix_reference}
    monkeypatch.setattr(module, '_IMPLEMENTATIONS', both)
    with pytest.raises(RuntimeError, match='crashed'):
        check_phase_mix(torch.float32)
    fast.unsupported = lambda *tensors: 'no such machine'
    check_phase_mix(torch.float32)
