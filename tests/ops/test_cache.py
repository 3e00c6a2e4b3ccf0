"""What is cached of parameters: computed once, and again after any change of any of them."""

import copy
import gc
import threading

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from mmwave.ops.cache import SAMPLES, _states, cached
from tests.contracts import images


@pytest.fixture
def weight():
    return nn.Parameter(images(40, 24))


def doubled(made, *tensors):
    made.append(1)
    return sum((2 * t).sum() for t in tensors)


def twice(*parameters):
    """Return what is cached of the parameters, and whether this call computed it."""
    made = []
    value = cached('twice', lambda *tensors: doubled(made, *tensors), *parameters)
    with torch.no_grad():
        assert value == doubled([], *parameters)
    return value, bool(made)


def test_computed_once_and_from_several_parameters(weight):
    other = nn.Parameter(images(3))
    assert [twice(weight, other)[1] for _ in range(3)] == [True, False, False]
    assert twice(weight)[1]
    with torch.no_grad():
        other.add_(1)
    assert [twice(weight, other)[1], twice(weight)[1]] == [True, False]
    other = nn.Parameter(images(3, seed=4))
    assert [twice(weight, other)[1] for _ in range(2)] == [True, False]


def test_views_differ_by_offset_and_strides(weight):
    for part in (weight[:20], weight[20:], weight[:24], weight[:24].t()):
        assert [twice(part)[1], twice(part)[1]] == [True, False]
    assert cached('sum', torch.sum, weight[:20]) != cached('sum', torch.sum, weight[20:])


def test_tensors_that_are_no_parameters_are_not_cached(weight):
    assert cached('twice', torch.sum, weight.detach()) is None
    assert cached('twice', torch.sum, weight, weight.detach()) is None
    with torch.inference_mode():
        without_versions = nn.Parameter(torch.ones(3))
    assert cached('twice', torch.sum, without_versions) is None


def test_the_oldest_is_evicted_beyond_the_limit(weight):
    for how in (0, 1, 2, 1):
        cached(how, torch.sum, weight, limit=2)
    made = [how for how, *_ in _states[id(weight)].entries]
    assert made == [1, 2]


def test_nothing_leaks():
    """No reference cycle holds a cached value once its parameter is freed, or changed."""
    weight, other = nn.Parameter(images(4)), nn.Parameter(images(4))
    count = len(_states)

    def clone_of(*tensors):
        value = cached('clone', lambda *t: t[0].clone(), *tensors)
        return torch.multiprocessing.reductions.StorageWeakRef(value.untyped_storage())

    gc.disable()
    try:
        first = clone_of(weight, other)
        assert not first.expired()
        with torch.no_grad():
            weight.add_(1)
        second = clone_of(weight, other)
        assert first.expired()
        assert len(_states) == count + 2
        del weight, other
        assert second.expired()
        assert len(_states) == count
    finally:
        gc.enable()


def test_usable_outside_inference_mode(weight):
    with torch.inference_mode():
        value = cached('double', lambda w: 2 * w, weight)
    assert not value.is_inference()
    assert not value.requires_grad


def step(optimizer, **options):
    def change(weight):
        weight.grad = torch.ones_like(weight)
        optimizer([weight], lr=0.1, **options).step()
        weight.grad = None

    return change


CHANGES = {
    'in place': lambda w: w.detach().mul_(2),
    'in inference mode': lambda w: torch.inference_mode()(w.mul_)(2),
    'foreach': lambda w: torch._foreach_mul_([w], 2),
    'other data': lambda w: setattr(w, 'data', images(40, 24, seed=9)),
    'a vector': lambda w: vector_to_parameters(2 * parameters_to_vector([w]), [w]),
    'SGD': step(torch.optim.SGD),
    'SGD, foreach': step(torch.optim.SGD, foreach=True),
    'SGD, fused': step(torch.optim.SGD, fused=True),
    'Adam, fused': step(torch.optim.Adam, fused=True),
    'AdamW, fused': step(torch.optim.AdamW, fused=True),
    'Adagrad, fused': step(torch.optim.Adagrad, fused=True),
    # Torch does not see these.
    'data, in place': lambda w: w.data.mul_(2),
    'by NumPy': lambda w: w.detach().numpy().__imul__(2),
    'NaN': lambda w: w.data.fill_(torch.nan),
}


@pytest.mark.parametrize('change', CHANGES)
def test_recomputed_after_any_change(weight, change):
    twice(weight)
    with torch.no_grad():
        CHANGES[change](weight)
    made = []
    value = cached('twice', lambda w: doubled(made, w), weight)
    assert made
    if change != 'NaN':  # which equals nothing, and is recomputed in every call
        assert torch.equal(value, doubled([], weight.detach()))
        cached('twice', lambda w: doubled(made, w), weight)
        assert len(made) == 1


def one_value(weight):
    """Return a change of a value that is not among the samples."""
    change = torch.zeros_like(weight)
    change[1] = -1
    return change


def fused_step(weight):
    weight.grad = -one_value(weight)
    torch.optim.SGD([weight], lr=1.0, fused=True).step()


ONE_VALUE = {
    'in place': lambda w: torch.no_grad()(w.add_)(one_value(w)),
    'other data': lambda w: setattr(w, 'data', w.data + one_value(w)),
    'SGD, fused': fused_step,
}


@pytest.mark.parametrize('change', ONE_VALUE)
def test_changes_that_torch_reports_are_seen_wherever_they_are(change):
    weight = nn.Parameter(torch.zeros(100 * SAMPLES))
    cached('sum', torch.sum, weight)
    ONE_VALUE[change](weight)
    assert cached('sum', torch.sum, weight) == -1


def test_copies_have_entries_of_their_own(weight):
    twice(weight)
    assert twice(copy.deepcopy(weight))[1]


def test_from_many_threads():
    parameters = [nn.Parameter(images(4, 4, seed=k)) for k in range(3)]
    wanted = [p.sum().item() for p in parameters]
    failed = []

    def ask():
        for k in range(2000):
            number = k % 3
            value = cached(k % 5, torch.sum, parameters[number], limit=2)
            if value.item() != wanted[number]:
                failed.append(k)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert all(len(_states[id(p)].entries) <= 2 for p in parameters)
