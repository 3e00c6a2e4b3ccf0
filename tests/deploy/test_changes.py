"""Deploy forms after their weights changed: what they keep of them is never of before."""

import copy
import threading

import pytest
import torch
from torch import nn

from mmwave.deploy import to_deploy
from tests.contracts import build, images, randomise_norms, relative_error, total
from tests.families import TINY

SIZES = ((32, 32), (36, 44))
WIDE = dict(depths=(1, 1, 1, 1), dims=(32, 32, 64, 96), mlp_ratios=(3, 2, 2, 1), norm='BN')
FORMS = {
    **{name: (name, {}, torch.float32) for name in TINY},
    **{f'{name}, bf16': (name, {}, torch.bfloat16) for name in ('PosMLP', 'WaveMLP')},
    'PosMLP, resize': ('PosMLP', dict(grid_mode='resize'), torch.float32),
    'WaveMLP, wide bf16': ('WaveMLP', dict(arch=WIDE), torch.bfloat16),
}


def deployed(form, seed=0):
    name, options, dtype = FORMS[form]
    model = build(name, **{'arch': TINY[name], **options}).eval()
    randomise_norms(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return to_deploy(model)[0].to(dtype)


def outputs(model, dtype):
    with torch.no_grad():
        return [o for size in SIZES for o in model(images(1, 3, *size).to(dtype))]


def afresh(model):
    """The same weights in a model that has kept nothing yet."""
    twin = copy.deepcopy(model)
    for module in twin.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(parameter.detach().clone()))
    return twin


def stepped(optimizer, **options):
    """As one trains a deploy form, in eval mode, between two looks at it."""

    def change(model, form):
        running = optimizer(model.parameters(), lr=1e-2, **options)
        with torch.enable_grad():
            total(model(images(1, 3, 36, 44).to(FORMS[form][2]))).backward()
        outputs(model, FORMS[form][2])  # after the gradient, before the step
        running.step()
        running.zero_grad()

    return change


@torch.no_grad()
def replaced(model, form):
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(1.1 * parameter))


@torch.no_grad()
def shared(model, form):
    """Parameters that another model has and keeps things of as well."""
    other = deployed(form, seed=1)
    outputs(other, FORMS[form][2])
    for module, theirs in zip(model.modules(), other.modules(), strict=True):
        for name, parameter in theirs.named_parameters(recurse=False):
            setattr(module, name, parameter)
    outputs(model, FORMS[form][2])
    for parameter in other.parameters():
        parameter.mul_(1.1)


def loaded(**options):
    def change(model, form):
        model.load_state_dict(deployed(form, seed=1).state_dict(), **options)

    return change


CHANGES = {
    'in place': lambda m, _: [p.detach().mul_(1.1) for p in m.parameters()],
    'in inference mode': lambda m, _: [torch.inference_mode()(p.mul_)(1.1) for p in m.parameters()],
    'data': lambda m, _: [setattr(p, 'data', 1.1 * p.data) for p in m.parameters()],
    'data in place': lambda m, _: [p.data.mul_(1.1) for p in m.parameters()],
    'foreach': lambda m, _: torch.no_grad()(torch._foreach_mul_)(list(m.parameters()), 1.1),
    'vector': lambda m, _: nn.utils.vector_to_parameters(
        1.1 * nn.utils.parameters_to_vector(m.parameters()), m.parameters()
    ),
    'SGD': stepped(torch.optim.SGD),
    'SGD fused': stepped(torch.optim.SGD, fused=True),
    'AdamW fused': stepped(torch.optim.AdamW, fused=True),
    'replaced': replaced,
    'shared': shared,
    'loaded': loaded(),
    'assigned': loaded(assign=True),
    'cast': lambda m, form: m.double().to(FORMS[form][2]),
}


@pytest.mark.parametrize('change', CHANGES)
@pytest.mark.parametrize('form', FORMS)
def test_outputs_are_those_of_the_weights_at_hand(form, change, request):
    if 'wide' in form:
        request.getfixturevalue('kernels')
    dtype = FORMS[form][2]
    model = deployed(form)
    before = outputs(model, dtype)
    CHANGES[change](model, form)
    got, wanted = outputs(model, dtype), outputs(afresh(model), dtype)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    changed = any(not torch.equal(a, b) for a, b in zip(got, before, strict=True))
    assert changed == (change != 'cast')


@pytest.mark.parametrize('parameters', [True, False], ids=['parameters', 'tensors'])
@pytest.mark.parametrize('form', FORMS)
@torch.no_grad()
def test_called_with_the_weights_of_another(form, parameters):
    dtype = FORMS[form][2]
    model, other = deployed(form), deployed(form, seed=1)
    wanted, theirs = outputs(afresh(model), dtype), outputs(other, dtype)
    state = dict(other.named_parameters())
    if not parameters:
        state = {k: v.detach().clone() for k, v in state.items()}
    for _ in range(2):
        got = [
            o
            for size in SIZES
            for o in torch.func.functional_call(model, state, (images(1, 3, *size).to(dtype),))
        ]
        # Of tensors that are no parameters nothing is kept: products round in another order.
        near = 0 if parameters else 100 * torch.finfo(dtype).eps
        assert all(relative_error(a, b) <= near for a, b in zip(got, theirs, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(outputs(model, dtype), wanted, strict=True))


@pytest.mark.parametrize('form', FORMS)
def test_copies_go_their_own_way(form):
    dtype = FORMS[form][2]
    model = deployed(form)
    wanted = outputs(model, dtype)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(1.1)
    copy.deepcopy(model)
    assert all(torch.equal(a, b) for a, b in zip(outputs(model, dtype), wanted, strict=True))
    changed = outputs(twin, dtype)
    assert all(
        torch.equal(a, b) for a, b in zip(changed, outputs(afresh(twin), dtype), strict=True)
    )


@pytest.mark.parametrize('form', ['PosMLP', 'PosMLP, resize', 'WaveMLP'])
def test_from_many_threads(form):
    model = deployed(form)
    sizes = [(32 + 4 * k, 32 + 8 * (k % 3)) for k in range(6)]
    x = [images(1, 3, *size) for size in sizes]
    with torch.no_grad():
        wanted = [model(image) for image in x]
    failed = []

    def run(first):
        try:
            with torch.no_grad():
                for k in range(first, first + 2 * len(x)):
                    got = model(x[k % len(x)])
                    pairs = zip(got, wanted[k % len(x)], strict=True)
                    assert all(torch.equal(a, b) for a, b in pairs)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
