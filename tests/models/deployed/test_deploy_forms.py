"""What holds for the deploy form of every family."""

import copy
import importlib
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from mmwave.deploy import to_deploy
from mmwave.models.deployed import find_deployed_family
from mmwave.models.layers import deployed as layers
from mmwave.ops import chunks
from mmwave.registry import MODELS
from tests.contracts import images, registered, relative_error, total
from tests.families import FAMILIES
from tests.models.deployed.forms import (
    NAMES,
    SIZES,
    assert_equal,
    distance,
    forms,
    grid_modes,
    model,
    run,
    trained_size,
)

every_family = pytest.mark.parametrize('name', NAMES)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several parts, the last one shorter, wherever work is divided on a CPU."""
    monkeypatch.setattr(chunks, 'CPU_CHUNK', 7)
    for name in ('posmlp', 'eamlp'):
        module = importlib.import_module(f'mmwave.models.deployed.{name}')
        monkeypatch.setattr(module, 'CPU_CHUNK', 20)


@pytest.mark.parametrize('autograd', [False, True], ids=['in-place', 'autograd'])
@forms()
def test_equal_elementwise(name, variant, grid_mode, autograd):
    made = model(name, variant, grid_mode)
    before = copy.deepcopy(made.state_dict())
    deployed, _ = to_deploy(made)
    assert not deployed.training
    sizes = (trained_size(name, variant),) if grid_mode == 'strict' else SIZES
    for size in sizes:
        x = images(2, 3, *size).double().requires_grad_(autograd)
        kept = x.detach().clone()
        with nullcontext() if autograd else torch.no_grad():
            got, wanted = deployed(x), made(x)
        assert_equal(got, wanted)
        assert torch.equal(x, kept)
        if autograd:
            gradients = [torch.autograd.grad(total(levels), x)[0] for levels in (got, wanted)]
            assert relative_error(*gradients) < 1e-13
    if autograd:
        total(deployed(x)).backward()
        assert all(p.grad.isfinite().all() for p in deployed.parameters())
    assert all(torch.equal(t, before[k]) for k, t in made.state_dict().items())


@every_family
@pytest.mark.parametrize('change', ['scale', 'shift'])
def test_the_comparison_sees_what_is_not_folded(name, change, monkeypatch):
    made = model(name)
    right = layers.fuse_norm_before

    def wrong(weight, bias, scale, shift):
        parts = dict(scale=scale, shift=shift)
        parts[change] = torch.full_like(scale, float(change == 'scale'))
        return right(weight, bias, **parts)

    for module in (layers, find_deployed_family(type(made))):  # whichever of them folds
        if hasattr(module, 'fuse_norm_before'):
            monkeypatch.setattr(module, 'fuse_norm_before', wrong)
    deployed, _ = to_deploy(made)
    x = images(1, 3, 64, 48).double()
    pairs = zip(run(deployed, x), run(made, x), strict=True)
    assert max(relative_error(*pair) for pair in pairs) > 1e-4


@every_family
def test_levels_and_images_are_not_overwritten(name):
    """Blocks overwrite what they made themselves, not what they were given."""
    made = model(name)
    deployed, _ = to_deploy(made)
    for form in (made, deployed):
        form.out_norms = nn.ModuleDict({str(i): nn.Identity() for i in range(4)})
    seen = []
    for part in (deployed.stem, *deployed.downsamples):
        part.register_forward_hook(lambda *args: seen.append((args[-1], args[-1].clone())))
    x = images(1, 3, 32, 64).double()
    kept = x.clone()
    # Channels first or last: what a part gets may be what it is about to overwrite.
    for layout in (torch.contiguous_format, torch.channels_last):
        given = x.contiguous(memory_format=layout)
        for got, wanted in zip(run(deployed, given), run(made, x), strict=True):
            assert relative_error(got, wanted) < 1e-13
        assert torch.equal(given, kept)
    assert len(seen) == 8
    assert all(torch.equal(*pair) for pair in seen)


@forms()
def test_low_precision_is_no_further_off_than_the_train_form_s(name, variant, grid_mode):
    """Whatever the memory format, and under autocast."""
    made = model(name, variant, grid_mode)
    x = images(2, 3, *(trained_size(name, variant) if grid_mode == 'strict' else (64, 40)))
    last = dict(memory_format=torch.channels_last)
    autocast = torch.autocast('cpu', dtype=torch.bfloat16)

    for dtype in (torch.float32, torch.bfloat16):
        low = copy.deepcopy(made).to(dtype)
        exact = run(copy.deepcopy(low).double(), x.to(dtype).double())
        deployed, _ = to_deploy(low)
        assert {p.dtype for p in deployed.parameters()} == {dtype}
        given = x.to(dtype)
        pairs = [(low, deployed, nullcontext())]
        if dtype == torch.float32:
            pairs.append((low, deployed, autocast))
        for train, deploy, context in pairs:
            with context:
                levels = run(train, given), run(deploy, given)
                levels += (run(deploy, given.contiguous(**last)),)
                levels += (run(copy.deepcopy(deploy).to(**last), given.contiguous(**last)),)
            for of_train, *others, wanted in zip(*levels, exact, strict=True):
                allowed = 2 * distance(of_train, wanted) + torch.finfo(of_train.dtype).eps
                for got in others:
                    assert got.dtype == of_train.dtype
                    assert distance(got, wanted) < allowed


@every_family
@pytest.mark.parametrize('act_cfg', [dict(type='GELU', approximate='tanh'), dict(type='PReLU')])
def test_other_activations(name, act_cfg):
    made, usual = model(name, act_cfg=act_cfg), model(name)
    deployed, _ = to_deploy(made)
    assert deployed.act_cfg == act_cfg
    x = images(1, 3, 45, 37).double()
    wanted = run(made, x)
    assert_equal(run(deployed, x), wanted)
    assert relative_error(run(usual, x)[-1], wanted[-1]) > 1e-6


@MODELS.register_module()
class ScaledTanh(nn.Module):
    """An activation with a buffer."""

    def __init__(self):
        super().__init__()
        self.register_buffer('scale', torch.tensor(1.5))

    def forward(self, x):
        return self.scale * x.tanh()


@every_family
def test_buffers_of_activations_are_kept(name):
    made = model(name, act_cfg=dict(type='mmwave.ScaledTanh'))
    for part in made.modules():
        if isinstance(part, ScaledTanh):
            part.scale.fill_(0.7)
    deployed, _ = to_deploy(made)
    x = images(1, 3, 64, 96).double()
    assert_equal(run(deployed, x), run(made, x))


@every_family
def test_a_block_of_another_class_is_refused(name):
    """It may compute something else."""
    made = model(name)
    block = made.stages[0][0]
    block.__class__ = type('Mine', (type(block),), {})
    with pytest.raises(ValueError, match=r'^stages\.0\.0 is a .*Mine, not a \w+ of mmwave'):
        to_deploy(made)


@every_family
def test_settings_and_a_strict_state_are_kept(name, tmp_path):
    options = dict(out_indices=(1, 3), act_cfg=dict(type='ReLU'))
    options |= dict(grid_mode=FAMILIES[name].grid_modes[-1]) if FAMILIES[name].grid_modes else {}
    own = {
        key: 0.5 for key in ('gate_norm_eps', 'norm_eps') if key in registered()[name].arguments()
    }
    made = model(name, **options, **own)
    deployed, report = to_deploy(made)
    assert all(getattr(deployed, k) == v for k, v in (options | own).items())
    assert report.parameters == tuple(
        sum(p.numel() for p in form.parameters()) for form in (made, deployed)
    )
    torch.save(deployed.state_dict(), tmp_path / 'deployed.pth')
    fresh = model(name, deploy=True, **options, **own)
    x = images(1, 3, 45, 37).double()
    assert relative_error(run(fresh, x)[-1], run(deployed, x)[-1]) > 1e-2
    fresh.load_state_dict(torch.load(tmp_path / 'deployed.pth'), strict=True)
    for got, kept, wanted in zip(run(fresh, x), run(deployed, x), run(made, x), strict=True):
        assert torch.equal(got, kept)
        assert relative_error(got, wanted) < 1e-13


@every_family
def test_weights_of_the_other_form_are_refused(name, tmp_path):
    train, deploy = model(name), model(name, deploy=True)
    for made, other, message in (
        (train, deploy, f'in deploy form, this {name} is in train form: build the model with'),
        (deploy, train, r'in train form, .* tools/to_deploy\.py'),
    ):
        state = {f'backbone.{k}': v for k, v in other.state_dict().items()}
        path = str(tmp_path / 'weights.pth')
        torch.save(state, path)
        for load in (
            lambda made=made, other=other: made.load_state_dict(other.state_dict(), strict=False),
            lambda made=made, path=path: made.load_pretrained(path),
            lambda made=made, state=state: nn.ModuleDict({'backbone': made}).load_state_dict(
                state, strict=False
            ),
        ):
            with pytest.raises(ValueError, match=message):
                load()


@every_family
def test_folding_in_low_precision_rounds_once(name):
    for dtype in (torch.float32, torch.bfloat16):
        low = model(name).to(dtype)
        exact, _ = to_deploy(copy.deepcopy(low).double())
        folded = to_deploy(low)[0].state_dict()
        for key, tensor in exact.state_dict().items():
            assert torch.equal(folded[key], tensor.to(dtype)), key


@every_family
def test_deploying_draws_no_random_numbers(name):
    made = model(name)
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    to_deploy(made)
    assert torch.equal(torch.rand(3), wanted)


@every_family
def test_what_is_folded_is_reported_and_gone(name):
    made = model(name)
    deployed, report = to_deploy(made)
    lines = report.fused['']
    assert lines
    assert all(' into ' in line for line in lines)
    assert str(made.num_blocks) in ' '.join(lines)
    _, mark = find_deployed_family(type(made)).MARKS
    assert any(key.endswith(mark) for key in made.state_dict())
    assert not any(key.endswith(mark) for key in deployed.state_dict())
    inside = (deployed.stem, *deployed.downsamples, *deployed.stages)
    assert not [m for part in inside for m in part.modules() if isinstance(m, nn.BatchNorm2d)]


# Of windows: test_contract.py; compiled for all sizes: test_compile.py.
@pytest.mark.export
@pytest.mark.parametrize(
    'name',
    [n for n in NAMES if 'resize' in grid_modes(n) and n != 'PosMLP'],  # see its own file
)
def test_exported_graphs_of_resized_models_hold_for_other_sizes(name):
    made, _ = to_deploy(model(name, grid_mode='resize', out_indices=(1,)))
    side = torch.export.Dim.DYNAMIC
    x = images(2, 3, 60, 40).double()
    with torch.no_grad():  # so that it would compute in place if no graph were traced
        program = torch.export.export(made, (x,), dynamic_shapes=({0: side, 2: side, 3: side},))
    graph = program.module()
    for size in ((45, 37), (96, 70)):
        x = images(3, 3, *size).double()
        for got, wanted in zip(run(graph, x), run(made, x), strict=True):
            assert relative_error(got, wanted) < 1e-13
