"""Tools that rely on modules being called: hooks, pruning, wrappers. The train form calls them all.

What a deploy form calls is docs/using-backbones.md's.
"""

from collections import Counter

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from tests.contracts import build, images, relative_error, total
from tests.families import TINY
from tests.models.backbones.test_derivatives import worst

SIZE = (2, 3, 36, 40)


def weights_of(layer):
    return [name for name, _ in layer.named_parameters(recurse=False)]


@pytest.mark.parametrize('options', [dict(), dict(lean=False), dict(with_cp=True)], ids=str)
@pytest.mark.parametrize('name', TINY)
def test_every_part_with_parameters_is_called_once(name, options):
    model, calls = build(name, TINY[name], **options).train(), Counter()
    for path, part in model.named_modules():
        part.register_forward_hook(lambda *_, path=path: calls.update([path]))
    outputs = model(images(*SIZE))
    containers = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
    for path, part in model.named_modules():
        if not any(True for _ in part.parameters()):
            continue
        holder = type(part) in containers and not weights_of(part)
        assert calls[path] == (0 if holder else 1), path
    forward = dict(calls)
    total(outputs).backward()
    if 'with_cp' not in options:  # as torch's checkpoints do: what is in a block runs again
        assert calls == forward


@pytest.mark.parametrize('name', TINY)
def test_hooks_see_what_layers_give_and_may_change_it(name):
    model = build(name, TINY[name]).double().eval()
    x = images(*SIZE).double()
    wanted = model(x)
    for path, layer in model.named_modules():
        if not weights_of(layer) or path.startswith('out_norms'):
            continue
        handle = layer.register_forward_hook(lambda *args: 1.5 * args[-1])
        assert any(relative_error(a, b) > 1e-12 for a, b in zip(model(x), wanted, strict=True)), (
            path
        )
        handle.remove()


@pytest.mark.parametrize('name', TINY)
def test_pruned_weights_stay_pruned_in_training(name):
    """``prune`` computes a layer's weight in a hook in front of its forward."""
    model = build(name, TINY[name]).double()
    x = images(*SIZE).double()
    layers = [m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer in layers:
        prune.l1_unstructured(layer, 'weight', 0.5)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.manual_seed(0)
    total(model(x)).backward()
    optimizer.step()
    model.eval()
    got = model(x)
    assert sum((layer.weight == 0).sum() for layer in layers) > 100
    for layer in layers:
        prune.remove(layer, 'weight')
    for a, b in zip(got, model(x), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize('name', TINY)
def test_gradient_hooks_of_layers_run(name):
    model, seen = build(name, TINY[name]).train(), Counter()
    layers = {n: m for n, m in model.named_modules() if weights_of(m)}
    for path, layer in layers.items():
        layer.register_full_backward_hook(lambda *_, path=path: seen.update([path]))
    total(model(images(*SIZE).requires_grad_())).backward()
    # A norm or an affine layer whose output is recomputed is called again in the backward pass.
    assert {path for path in layers if seen[path] < 1} == set()


@pytest.mark.parametrize('cfg', [dict(type='ReLU', inplace=True), dict(type='Swish')], ids=str)
@pytest.mark.parametrize('name', TINY)
def test_activations_in_place_or_not_are_the_same(name, cfg):
    found = []
    for settings in (cfg, {k: v for k, v in cfg.items() if k != 'inplace'}):
        drop = {'token_drop_rate': 0.0} if name == 'EAMLP' else {}
        for lean in (True, False):
            model = build(name, TINY[name], act_cfg=settings, lean=lean, **drop).double().train()
            total(model(images(*SIZE).double())).backward()
            found.append([p.grad for p in model.parameters()])
    assert all(worst(other, found[0]) == 0 for other in found[1:])


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


@pytest.mark.parametrize('name', TINY)
def test_parametrized_weights(name):
    found = []
    for parametrized in (True, False):
        model = build(name, TINY[name]).double().eval()
        for layer in [m for m in model.modules() if 'weight' in weights_of(m)]:
            if parametrized:
                parametrize.register_parametrization(layer, 'weight', Doubled())
            else:
                layer.weight.data.mul_(2)
        x = images(*SIZE).double().requires_grad_()
        found.append(torch.autograd.grad(total(model(x)), x)[0])
    assert relative_error(*found) < 1e-12
