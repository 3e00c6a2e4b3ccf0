"""PosMLP, ViP and EAMLP in deploy form, and their training in less memory."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from mmwave.deploy import to_deploy
from mmwave.inspect.memory import held_bytes
from mmwave.models import EAMLP, PosMLP, ViP
from mmwave.models.backbones.eamlp import EAMLPArch
from mmwave.models.backbones.posmlp import PositionalGate, PosMLPArch
from mmwave.models.backbones.vip import ViPArch
from mmwave.models.deployed.eamlp import NUM_POSITIONS
from mmwave.models.deployed.posmlp import KernelGate
from mmwave.models.layers.window_mixing import Windows
from mmwave.ops.sinusoids import sinusoids
from tests.contracts import compiled, images, randomise_norms, relative_error, total

ARCHS = {
    PosMLP: PosMLPArch(
        depths=(1, 2, 1, 1),
        dims=(4, 8, 16, 32),
        mlp_ratios=(4, 2, 2, 2),
        windows=(4, (4, 3), 4, 2),
        groups=(2, 4, 1, 8),
    ),
    ViP: ViPArch(
        depths=(1, 2, 1, 1),
        dims=(24, 48, 48, 48),
        patch_size=4,
        grids=((8, 12), (4, 6), (4, 6), (4, 6)),
        mlp_ratio=2,
    ),
    EAMLP: EAMLPArch(depths=(1, 1, 1, 2), dim=24, heads=3, mlp_ratio=2, token_dim=6),
}
MODES = [(f, mode) for f in (PosMLP, ViP) for mode in ('window', 'resize', 'strict')]
FORMS = [pytest.param(f, dict(grid_mode=mode), id=f'{f.__name__}-{mode}') for f, mode in MODES]
FORMS.append(pytest.param(EAMLP, {}, id='EAMLP'))
ANY_SIZE = [form for form in FORMS if 'strict' not in form.id]
FILLED = {PosMLP: (64, 192), ViP: (32, 48), EAMLP: (64, 48)}


def build(family, arch=None, **options):
    """A model that is far from where training starts: norms, biases and attentions matter."""
    torch.manual_seed(0)
    model = family(arch or ARCHS[family], **options)
    randomise_norms(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model


def close(got, wanted, bound):
    for a, b in zip(got, wanted, strict=True):
        assert ((a - b).norm() / b.norm()).item() < bound


@pytest.mark.parametrize('recorded', [False, True])
@pytest.mark.parametrize(('family', 'options'), FORMS)
def test_deploy_form_is_equal_elementwise(family, options, recorded):
    model = build(family, **options).double().eval()
    deployed, report = to_deploy(model)
    sizes = [FILLED[family]]
    if options.get('grid_mode') != 'strict':
        sizes += [(32, 32), (33, 47), (100, 37), (133, 90)]
    for size in sizes:
        x = images(2, 3, *size).double()
        before = x.clone()
        with torch.set_grad_enabled(recorded):
            for got, wanted in zip(deployed(x), model(x), strict=True):
                assert relative_error(got, wanted) < 1e-12
        assert torch.equal(x, before)
    assert report.fused[''][0].startswith('the norms')
    assert not deployed.training


@pytest.mark.parametrize(('family', 'options'), FORMS)
def test_gradients_of_the_deploy_form_are_the_train_form_s(family, options):
    model = build(family, **options).double().eval()
    deployed, _ = to_deploy(model)
    gradients = []
    for form in (model, deployed):
        x = images(2, 3, *FILLED[family]).double().requires_grad_()
        total(form(x)).backward()
        gradients.append(x.grad)
    assert relative_error(*gradients) < 1e-12
    assert all(p.grad.isfinite().all() for p in deployed.parameters())


@pytest.mark.parametrize(('family', 'options'), ANY_SIZE)
def test_other_activations_in_deploy_form(family, options):
    act_cfg = dict(type='GELU', approximate='tanh')
    exact = build(family, **options).double().eval()
    for config in (act_cfg, dict(type='PReLU')):
        model = build(family, act_cfg=config, **options).double().eval()
        deployed, _ = to_deploy(model)
        assert deployed.act_cfg == config
        x = images(1, 3, 40, 70).double()
        with torch.no_grad():
            outputs = zip(deployed(x), model(x), exact(x), strict=True)
            for got, wanted, other in outputs:
                assert relative_error(got, wanted) < 1e-12
                assert relative_error(other, wanted) > 1e-6


@pytest.mark.parametrize(('family', 'options'), ANY_SIZE)
def test_blocks_write_over_nothing_that_others_hold(family, options):
    deployed, _ = to_deploy(build(family, **options).eval())
    seen = []
    for part in (deployed.stem, *deployed.downsamples):
        part.register_forward_hook(lambda *args: seen.append((args[-1], args[-1].clone())))
    with torch.no_grad():
        deployed(images(1, 3, 32, 32))
    assert len(seen) == 4
    assert all(torch.equal(*pair) for pair in seen)


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(('family', 'options'), FORMS)
def test_deploy_form_in_other_types_and_layouts(family, options, dtype):
    model = build(family, **options).to(dtype).eval()
    deployed, _ = to_deploy(model)
    assert {t.dtype for t in deployed.state_dict().values()} == {dtype}
    x = images(2, 3, *FILLED[family])
    with torch.no_grad():
        exact = to_deploy(copy.deepcopy(model).double())[0](x.to(dtype).double())
        # As far as the train form is.
        bound = 5e-6 if dtype == torch.float32 else 0.06
        close([o.double() for o in deployed(x.to(dtype))], exact, bound)
        last = x.to(dtype).contiguous(memory_format=torch.channels_last)
        close([o.double() for o in deployed(last)], exact, bound)
        layout = copy.deepcopy(deployed).to(memory_format=torch.channels_last)
        close([o.double() for o in layout(last)], exact, bound)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            close([o.double() for o in deployed(x.to(dtype))], exact, 0.06)


@pytest.mark.parametrize(('family', 'options'), FORMS)
def test_deploy_form_is_kept_by_its_state(family, options, tmp_path):
    model = build(family, **options).eval()
    deployed, _ = to_deploy(model)
    torch.save(deployed.state_dict(), tmp_path / 'deployed.pth')
    fresh = build(family, deploy=True, **options).eval()
    x = images(2, 3, *FILLED[family])
    with torch.no_grad():
        assert relative_error(fresh(x)[3], deployed(x)[3]) > 1e-2
        fresh.load_state_dict(torch.load(tmp_path / 'deployed.pth'), strict=True)
        assert all(torch.equal(a, b) for a, b in zip(fresh(x), deployed(x), strict=True))
    with pytest.raises(ValueError, match='weights are in deploy form'):
        model.load_state_dict(deployed.state_dict())
    with pytest.raises(ValueError, match='weights are in train form'):
        deployed.load_state_dict(model.state_dict())


@pytest.mark.export
@pytest.mark.parametrize(('family', 'options'), FORMS)
def test_deploy_form_as_one_graph(family, options):
    levels = (2,) if family is EAMLP else (1,)
    arch = replace(ARCHS[family], depths=(1, 1, 1, 1))
    model = build(family, arch, out_indices=levels, **options).double().eval()
    deployed, _ = to_deploy(model)
    sizes = [FILLED[family]]
    if options.get('grid_mode') != 'strict':
        sizes.insert(0, (100, 70))
    graph = compiled(deployed, fullgraph=True, dynamic=False)
    graphs = [(size, graph) for size in sizes]
    x = images(2, 3, *sizes[0]).double()
    if len(sizes) > 1 and not (family is PosMLP and options['grid_mode'] == 'resize'):
        side = torch.export.Dim.DYNAMIC
        free = dict(dynamic_shapes=({0: side, 2: side, 3: side},))
        program = torch.export.export(deployed, (x,), **free).module()
        graphs += [(size, program) for size in ((100, 70), (133, 90), (33, 47))]
    else:
        graphs.append((sizes[0], torch.export.export(deployed, (x,)).module()))
    with torch.no_grad():
        for size, graph in graphs:
            x = images(2, 3, *size).double()
            for got, wanted in zip(graph(x), model(x), strict=True):
                assert relative_error(got, wanted) < 1e-12


@pytest.mark.parametrize('mode', ['window', 'resize'])
def test_kernels_of_a_gate_are_made_once_and_never_for_autograd(mode, monkeypatch):
    deployed, _ = to_deploy(build(PosMLP, grid_mode=mode).double().eval())
    made = []
    for name in ('_cropped', '_evaluated'):
        make = getattr(KernelGate, name)

        def counted(self, window, *sources, make=make):
            made.append(any(source.requires_grad for source in sources))
            return make(self, window, *sources)

        monkeypatch.setattr(KernelGate, name, counted)
    x = images(1, 3, 100, 70).double()
    with torch.no_grad():
        first = deployed(x)
        count = len(made)
        assert count > 0
        assert not any(made)
        assert all(torch.equal(a, b) for a, b in zip(deployed(x), first, strict=True))
    assert len(made) == count
    total(deployed(x)).backward()
    assert all(made[count:])
    assert len(made) == 2 * count
    assert all(p.grad is not None for p in deployed.parameters())


def test_a_gate_keeps_kernels_of_a_few_windows():
    torch.manual_seed(0)
    gate = KernelGate(PositionalGate(Windows((4, 4), resize=True), 2)).eval()
    with torch.no_grad():
        for side in range(2, 9):
            gate.kernels((side, side))
        kept = gate.kernels((8, 8))[0]
        assert gate.kernels((8, 8))[0] is kept
        for side in range(2, 9):
            gate.kernels((side, side))
        assert gate.kernels((8, 8))[0] is not kept


def test_positions_of_images_beyond_the_table():
    model = build(EAMLP).double().eval()
    deployed, _ = to_deploy(model)
    table = deployed.downsamples[1].table
    assert torch.equal(table, sinusoids(NUM_POSITIONS, 24).double())
    # More tokens, and one fewer than it has.
    for size in ((32, 16 * NUM_POSITIONS), (48, 192 * 16)):
        x = images(1, 3, *size).double()
        with torch.no_grad():
            for got, wanted in zip(deployed(x), model(x), strict=True):
                assert relative_error(got, wanted) < 1e-12


def gradients(family, x, **options):
    model = build(family, **options).train()
    torch.manual_seed(5)  # drop path and dropout draw the same
    outputs = model(x)
    total(outputs).backward()
    found = {n: p.grad for n, p in model.named_parameters()}
    return [o.detach() for o in outputs], found, dict(model.named_buffers())


@pytest.mark.parametrize('with_cp', [False, True])
@pytest.mark.parametrize('needs_gradient', [False, True])
@pytest.mark.parametrize(('family', 'options'), FORMS)
def test_lean_training_gives_the_same_bits(family, options, needs_gradient, with_cp):
    rates = {PosMLP: 'drop_rate', EAMLP: 'token_drop_rate'}
    options = {**options, 'drop_path_rate': 0.3, 'with_cp': with_cp}
    if family in rates:
        options[rates[family]] = 0.2
    sizes = [FILLED[family]]
    if options.get('grid_mode') != 'strict':
        sizes.append((100, 37))
    for size in sizes:
        runs = []
        for is_lean in (True, False):
            x = images(4, 3, *size).requires_grad_(needs_gradient)
            outputs, found, buffers = gradients(family, x, lean=is_lean, **options)
            assert all(gradient is not None for gradient in found.values())
            runs.append((outputs, {**found, 'image': x.grad}, buffers))
        for a, b in zip(runs[0][0], runs[1][0], strict=True):
            assert torch.equal(a, b)
        for got, wanted in zip(runs[0][1:], runs[1][1:], strict=True):
            for name in wanted:
                same = got[name] is wanted[name] or torch.equal(got[name], wanted[name])
                assert same, name


@pytest.mark.parametrize(('family', 'options'), FORMS)
def test_lean_training_of_activations_with_parameters(family, options):
    x = images(2, 3, *FILLED[family])
    (_, got, _), (_, wanted, _) = (
        gradients(family, x, lean=is_lean, act_cfg=dict(type='PReLU'), **options)
        for is_lean in (True, False)
    )
    for name in wanted:
        assert torch.equal(got[name], wanted[name]), name


@pytest.mark.parametrize(('family', 'options'), FORMS)
def test_lean_training_under_autocast(family, options):
    x = images(2, 3, *FILLED[family])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        (_, got, _), (_, wanted, _) = (
            gradients(family, x, lean=is_lean, **options) for is_lean in (True, False)
        )
    scale = max(g.norm() for g in wanted.values())
    for name in wanted:
        assert ((got[name] - wanted[name]).norm() / scale).item() < 1e-2, name


@pytest.mark.parametrize(
    ('family', 'change', 'bound'),  # measured: 1.45, 1.69 and 2.26
    [
        (PosMLP, dict(dims=(8, 16, 64, 64), depths=(1, 1, 12, 1)), 1.4),
        (ViP, dict(dims=(48, 96, 96, 96), depths=(1, 2, 2, 2), mlp_ratio=3), 1.65),
        (EAMLP, dict(depths=(1, 1, 4, 4)), 2.2),
    ],
)
def test_lean_training_keeps_less(family, change, bound):
    arch = replace(ARCHS[family], **change)
    held = []
    for is_lean in (False, True):
        model, x = family(arch, lean=is_lean).train(), images(4, 3, *FILLED[family])
        held.append(held_bytes(lambda model=model, x=x: model(x)))
    assert held[0] > bound * held[1], held[0] / held[1]


def test_lean_is_the_default():
    for family in ARCHS:
        for is_lean in (None, True, False):
            options = {} if is_lean is None else dict(lean=is_lean)
            model = family(ARCHS[family], **options)
            assert model.lean is (is_lean is not False)


def test_deploy_forms_hold_no_norm_that_folds():
    for family in ARCHS:
        deployed, _ = to_deploy(build(family).eval())
        assert not [m for m in deployed.modules() if isinstance(m, nn.BatchNorm2d)]
        assert not [n for n in deployed.state_dict() if 'norm2' in n]
