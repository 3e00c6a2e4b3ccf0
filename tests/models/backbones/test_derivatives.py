"""Derivatives of every kind: right, whatever a backbone does to save memory or time.

docs/using-backbones.md has the table.
"""

import pytest
import torch
from torch.autograd import forward_ad

from mmwave.deploy import to_deploy
from mmwave.models import WaveMLP
from mmwave.ops import extension
from tests.contracts import build, images, randomise_norms, relative_error
from tests.families import TINY

SIZE = (2, 3, 36, 40)
# Measured in float64: 4e-15 at most.
EXACT = 1e-12


def model_of(name, **options):
    """A backbone whose gradients are far from zero, in float64 and eval mode."""
    model = build(name, TINY[name], **options)
    randomise_norms(model)
    return model.double().eval()


def pulled(outputs):
    """A number of outputs, each image's counted alike; nothing is drawn, which vmap refuses."""
    total = 0
    for output in outputs:
        weights = torch.arange(output[0].numel(), dtype=torch.float64).cos()
        total = total + (output * weights.view(output.shape[1:]).to(output)).sum()
    return total


def penalty_gradients(model, x):
    """Gradients of the image and of every parameter, and those of a penalty on all of these."""
    x = x.clone().requires_grad_()
    inputs = [x, *model.parameters()]
    first = torch.autograd.grad(
        pulled(model(x)).square(), inputs, create_graph=True, allow_unused=True
    )
    first = [torch.zeros_like(p) if g is None else g for g, p in zip(first, inputs, strict=True)]
    scale = first[0].detach().square().sum()
    penalty = sum(g.square().sum() for g in first) / scale
    second = torch.autograd.grad(penalty, inputs, allow_unused=True)
    second = [torch.zeros_like(p) if g is None else g for g, p in zip(second, inputs, strict=True)]
    return [g.detach() for g in first], second


def worst(got, wanted):
    largest = max(g.abs().max() for g in wanted)
    return max(((a - b).abs().max() / largest).item() for a, b in zip(got, wanted, strict=True))


def slope(function, x, direction, step=1e-5):
    """A derivative by differences."""
    with torch.no_grad():
        return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


@pytest.mark.parametrize('training', [True, False], ids=['train', 'eval'])
@pytest.mark.parametrize('options', [dict(), dict(with_cp=True)], ids=['lean', 'with_cp'])
@pytest.mark.parametrize('name', TINY)
def test_gradients_of_gradients(name, options, training):
    x, drop = images(*SIZE).double(), {'token_drop_rate': 0.0} if name == 'EAMLP' else {}
    model = model_of(name, **options, **drop).train(training)
    plain = model_of(name, lean=False, **drop).train(training)
    for got, wanted in zip(penalty_gradients(model, x), penalty_gradients(plain, x), strict=True):
        assert worst(got, wanted) < EXACT


@pytest.mark.parametrize('name', TINY)
def test_gradients_of_gradients_are_those_of_differences(name):
    model, x, direction = model_of(name), images(*SIZE).double(), images(*SIZE, seed=1).double()

    def squared_gradient(x):
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return torch.autograd.grad(pulled(model(x)), x)[0].square().sum()

    x = x.requires_grad_()
    (gradient,) = torch.autograd.grad(pulled(model(x)), x, create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), x)
    # A step so small that no sample of ActiveMLP's crosses a position, where its gradient jumps.
    step = 1e-6
    wanted = slope(squared_gradient, x.detach(), direction, step=step)
    # What rounding leaves of a difference of two values: more than 1e-5 where the sum cancels.
    rounding = torch.finfo(torch.float64).eps * squared_gradient(x).item() / step
    assert (second * direction).sum() == pytest.approx(wanted.item(), rel=1e-5, abs=rounding)


@pytest.mark.parametrize('form', ['train', 'deploy'])
@pytest.mark.parametrize('name', TINY)
def test_transforms(name, form):
    plain = model_of(name, lean=False)
    model = to_deploy(plain)[0] if form == 'deploy' else model_of(name)
    x, direction = images(*SIZE).double(), images(*SIZE, seed=1).double()

    def scalar(x):
        return pulled(model(x))

    leaf = x.clone().requires_grad_()
    (wanted,) = torch.autograd.grad(pulled(plain(leaf)), leaf)
    along = (wanted * direction).sum()
    assert relative_error(torch.func.grad(scalar)(x), wanted) < EXACT
    assert relative_error(torch.func.jvp(scalar, (x,), (direction,))[1], along) < EXACT
    for autograd in (True, False):
        with forward_ad.dual_level(), torch.set_grad_enabled(autograd):
            dual = scalar(forward_ad.make_dual(x, direction))
            assert relative_error(forward_ad.unpack_dual(dual).tangent, along) < EXACT
    by_image = torch.func.vmap(torch.func.grad(lambda image: scalar(image[None])))(x)
    assert relative_error(by_image, wanted) < EXACT
    with torch.no_grad():
        mapped = torch.func.vmap(lambda image: model(image[None]))(x)
        for a, b in zip(mapped, plain(x), strict=True):
            assert relative_error(a[:, 0], b) < EXACT


@pytest.mark.parametrize('name', TINY)
def test_products_with_a_hessian(name):
    x, direction = images(*SIZE).double(), images(*SIZE, seed=1).double()
    found = [
        torch.autograd.functional.hvp(lambda x, m=model: pulled(m(x)), x, direction)[1]
        for model in (model_of(name), model_of(name, lean=False))
    ]
    assert relative_error(*found) < EXACT
    model = model_of(name)
    forward_over_reverse = torch.func.jvp(
        torch.func.grad(lambda x: pulled(model(x))), (x,), (direction,)
    )[1]
    assert relative_error(forward_over_reverse, found[1]) < EXACT


@pytest.mark.parametrize('options', [dict(), dict(with_cp=True)], ids=['lean', 'with_cp'])
@pytest.mark.parametrize('name', TINY)
def test_several_backward_passes_over_one_graph(name, options):
    """Of one output after the other, as torch's own checkpoints allow it."""
    found = []
    for settings in (options, dict(lean=False)):
        drop = {'token_drop_rate': 0.0} if name == 'EAMLP' else {}
        model = model_of(name, **settings, **drop).train()
        outputs = model(images(*SIZE).double())
        for k, output in enumerate(outputs):
            pulled([output]).backward(retain_graph=k + 1 < len(outputs))
        found.append([p.grad for p in model.parameters()])
        statistics = {k: v for k, v in model.state_dict().items() if 'running' in k}
        found.append(list(statistics.values()) or [torch.ones(1)])
    assert worst(found[0], found[2]) < EXACT
    assert worst(found[1], found[3]) < EXACT


class TestWithKernels:
    """The kernel in C++ computes gradients but not their gradients."""

    # Measured 4e-7 to 5e-7 in float32, with and without kernels.
    close = 5e-6

    @pytest.fixture
    def model(self, kernels):
        model = WaveMLP(TINY['WaveMLP'])
        randomise_norms(model)
        return model.eval()

    def test_gradients_of_gradients(self, model):
        x = images(*SIZE)
        got = penalty_gradients(model, x)
        with extension.without_kernels():
            wanted = penalty_gradients(model.double(), x.double())
        for a, b in zip(got, wanted, strict=True):
            assert worst([g.double() for g in a], b) < self.close

    @pytest.mark.parametrize('form', ['train', 'deploy'])
    def test_forward_mode(self, model, form):
        x, direction = images(*SIZE), images(*SIZE, seed=1)
        leaf = x.double().requires_grad_()
        plain = model_of('WaveMLP')
        plain.load_state_dict(model.state_dict())
        (gradient,) = torch.autograd.grad(pulled(plain(leaf)), leaf)
        along = (gradient * direction).sum()
        model = to_deploy(model)[0] if form == 'deploy' else model
        found = [torch.func.jvp(lambda x: pulled(model(x)), (x,), (direction,))[1]]
        for autograd in (True, False):
            with forward_ad.dual_level(), torch.set_grad_enabled(autograd):
                dual = pulled(model(forward_ad.make_dual(x, direction)))
                found.append(forward_ad.unpack_dual(dual).tangent)
        for tangent in found:
            assert relative_error(tangent, along) < self.close

    def test_the_kernel_is_used_again_afterwards(self, model, monkeypatch):
        calls = []
        run = torch.ops.mmwave_cpp.phase_mix

        def counted(*arguments):
            calls.append(1)
            return run(*arguments)

        monkeypatch.setattr(torch.ops.mmwave_cpp, 'phase_mix', counted, raising=False)
        x = images(*SIZE)
        torch.func.jvp(lambda x: pulled(model(x)), (x,), (x,))
        assert not calls
        with torch.no_grad():  # where no mode of lean's calls the replaced op by its name
            model(x)
        assert len(calls) == 4


def test_what_torch_has_no_derivatives_of_is_an_error():
    """Never a number: graphs have no gradients of gradients, mapped batch norms no statistics."""
    x = images(*SIZE).double()
    torch.compiler.reset()
    compiled = torch.compile(model_of('GMLP'), backend='aot_eager')
    with pytest.raises(RuntimeError, match='double backward'):
        penalty_gradients(compiled, x)
    model = model_of('RepMLPNet').train()
    with pytest.raises(RuntimeError, match='vmap'):
        torch.func.vmap(lambda image: model(image[None]))(x)
