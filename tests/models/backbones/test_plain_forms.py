"""GMLP, ResMLP and MLPMixer in deploy form, and their training with ``lean``."""

import copy
from contextlib import nullcontext

import pytest
import torch

from mmwave.deploy import to_deploy
from mmwave.inspect.memory import held_bytes
from mmwave.ops import chunks
from tests.contracts import build, compiled, images, relative_error, total

# Windows of 32 pixels, 4 x 4 positions; not square where it says so.
PLAIN = dict(depths=(1, 2, 0, 1), dim=8, patch_size=8, grid=4)
ARCHS = {
    'GMLP': PLAIN,
    'ResMLP': dict(PLAIN, scale_init=1.0),
    'MLPMixer': dict(PLAIN, token_mlp_dim=6, channel_mlp_dim=12),
}
MODES = ('window', 'resize', 'strict')
# The trained size, whole windows, windows filled up, odd sides.
CASES = [
    ('window', (32, 32)),
    ('window', (64, 96)),
    ('window', (45, 37)),
    ('window', (33, 100)),
    ('resize', (64, 40)),
    ('resize', (45, 37)),
    ('strict', (32, 32)),
]

every_family = pytest.mark.parametrize('name', ARCHS)
every_case = pytest.mark.parametrize(('grid_mode', 'size'), CASES)


def model(name, grid_mode='window', grid=4, **options):
    """A model whose every part has a say, in float64."""
    made = build(name, dict(ARCHS[name], grid=grid), grid_mode=grid_mode, **options).double()
    generator = torch.Generator().manual_seed(7)
    for parameter in made.parameters():
        inputs = parameter[0].numel() if parameter.dim() > 1 else 2
        with torch.no_grad():
            parameter.normal_(generator=generator).mul_(inputs**-0.5)
    return made


@every_family
@every_case
@pytest.mark.parametrize('recorded', [False, True], ids=['written-over', 'recorded'])
def test_deploy_form_is_equal_elementwise(name, grid_mode, size, recorded, monkeypatch):
    monkeypatch.setattr(chunks, 'CPU_CHUNK', 7)  # several parts, the last one shorter
    made = model(name, grid_mode).eval()
    before = copy.deepcopy(made.state_dict())
    deployed, report = to_deploy(made)
    assert report.tensors[1] < report.tensors[0]
    x = images(2, 3, *size).double().requires_grad_(recorded)
    with nullcontext() if recorded else torch.no_grad():
        got, wanted = deployed(x), made(x)
    for a, b in zip(got, wanted, strict=True):
        assert ((a - b).abs() <= 1e-9 * b.abs().clamp(min=1e-3)).all()
    assert all(torch.equal(t, before[k]) for k, t in made.state_dict().items())
    if recorded:
        a, b = (torch.autograd.grad(total(levels), x)[0] for levels in (got, wanted))
        assert relative_error(a, b) < 1e-12


@every_family
def test_oblong_grids(name):
    made = model(name, grid=(4, 5)).eval()
    deployed, _ = to_deploy(made)
    x = images(1, 3, 70, 45).double()
    with torch.no_grad():
        for got, wanted in zip(deployed(x), made(x), strict=True):
            assert relative_error(got, wanted) < 1e-12


@every_family
@pytest.mark.parametrize('change', ['scale', 'shift'])
def test_the_comparison_sees_what_is_not_folded(name, change, monkeypatch):
    from mmwave.models.deployed import gmlp, mlp_mixer, resmlp

    def wrong(weight, bias, scale, shift):
        parts = dict(scale=scale, shift=shift)
        parts[change] = torch.full_like(scale, float(change == 'scale'))
        return right(weight, bias, **parts)

    right = gmlp.fuse_norm_before
    for module in (gmlp, resmlp, mlp_mixer):
        monkeypatch.setattr(module, 'fuse_norm_before', wrong)
    made = model(name).eval()
    deployed, _ = to_deploy(made)
    x = images(1, 3, 32, 32).double()
    with torch.no_grad():
        assert relative_error(deployed(x)[0], made(x)[0]) > 1e-4


@every_family
def test_levels_and_images_are_not_written_over(name):
    """Blocks write over what they made themselves, not over what they were given."""
    made = model(name).eval()
    deployed, _ = to_deploy(made)
    for form in (made, deployed):
        form.out_norms = torch.nn.ModuleDict({str(i): torch.nn.Identity() for i in range(4)})
    x = images(1, 3, 32, 32).double()
    kept = x.clone()
    with torch.no_grad():
        for got, wanted in zip(deployed(x), made(x), strict=True):
            assert relative_error(got, wanted) < 1e-12
    assert torch.equal(x, kept)


@every_family
@pytest.mark.parametrize('grid_mode', ['window', 'resize'])
def test_low_precision_is_no_further_off_than_the_train_form_s(name, grid_mode):
    made = model(name, grid_mode).eval()
    x = images(2, 3, 64, 40)
    with torch.no_grad():
        exact = made(x.double())
        for dtype in (torch.float32, torch.bfloat16):
            low = copy.deepcopy(made).to(dtype)
            deployed, _ = to_deploy(low)
            assert {p.dtype for p in deployed.parameters()} == {dtype}
            pairs = [form(x.to(dtype)) for form in (deployed, low)]
            for got, train, wanted in zip(*pairs, exact, strict=True):
                allowed = 2 * relative_error(train.double(), wanted) + torch.finfo(dtype).eps
                assert relative_error(got.double(), wanted) < allowed


@every_family
@pytest.mark.parametrize('act_cfg', [dict(type='GELU', approximate='tanh'), dict(type='PReLU')])
def test_other_activations_in_deploy_form(name, act_cfg):
    made = model(name, act_cfg=act_cfg).eval()
    deployed, _ = to_deploy(made)
    x = images(2, 3, 45, 37).double()
    with torch.no_grad():
        for got, wanted in zip(deployed(x), made(x), strict=True):
            assert relative_error(got, wanted) < 1e-12


@every_family
def test_deploy_form_keeps_settings_and_a_strict_state(name, tmp_path):
    norm_eps = dict(GMLP='gate_norm_eps', MLPMixer='norm_eps').get(name)
    options = dict(grid_mode='resize', out_indices=(1, 3), act_cfg=dict(type='ReLU'))
    options |= {norm_eps: 0.5} if norm_eps else {}
    made = model(name, **options).eval()
    deployed, _ = to_deploy(made)
    assert not deployed.training
    assert all(getattr(deployed, key) == value for key, value in options.items())
    torch.save(deployed.state_dict(), tmp_path / 'deployed.pth')
    fresh = build(name, ARCHS[name], deploy=True, **options).double().eval()
    fresh.load_state_dict(torch.load(tmp_path / 'deployed.pth'), strict=True)
    x = images(1, 3, 45, 37).double()
    with torch.no_grad():
        for got, kept, wanted in zip(fresh(x), deployed(x), made(x), strict=True):
            assert torch.equal(got, kept)
            assert relative_error(got, wanted) < 1e-12
    for other, state, form in ((made, fresh, 'deploy'), (fresh, made, 'train')):
        with pytest.raises(ValueError, match=f'the weights are in {form} form'):
            other.load_state_dict(state.state_dict(), strict=False)


@every_family
def test_channels_last_and_autocast(name):
    made = model(name).float().eval()
    deployed, _ = to_deploy(made)
    x = images(2, 3, 64, 40)
    with torch.no_grad():
        wanted = deployed(x)
        last = deployed.to(memory_format=torch.channels_last)
        got = last(x.contiguous(memory_format=torch.channels_last))
        with torch.autocast('cpu', dtype=torch.bfloat16):
            narrow, train = deployed(x), made(x)
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 1e-5
    for a, b, c in zip(narrow, train, wanted, strict=True):
        assert a.dtype == b.dtype
        assert relative_error(a.float(), c) < 2 * relative_error(b.float(), c)


@every_family
@pytest.mark.parametrize('grid_mode', ['window', 'resize'])
@pytest.mark.parametrize('deploy', [True, False], ids=['deploy', 'train'])
def test_graphs_hold_for_other_sizes(name, grid_mode, deploy):
    made = model(name, grid_mode).eval()
    if deploy:
        made, _ = to_deploy(made)
    x = images(2, 3, 60, 40).double()
    side = torch.export.Dim.DYNAMIC
    with torch.no_grad():  # where a block writes over what it made, unless a graph is recorded
        program = torch.export.export(made, (x,), dynamic_shapes=({0: side, 2: side, 3: side},))
    targets = [n.target for n in program.graph.nodes if n.op == 'call_function']
    assert not any('gelu_' in str(target) for target in targets)
    graphs = (program.module(), compiled(made, fullgraph=True))
    for size in ((45, 37), (96, 70)):
        x = images(3, 3, *size).double()
        with torch.no_grad():
            for graph in graphs:
                for got, wanted in zip(graph(x), made(x), strict=True):
                    assert relative_error(got, wanted) < 1e-12


def step(name, x, *, autocast=False, **options):
    """Levels and gradients of a training step, of parameters and of the image if it wants one."""
    made = model(name, drop_path_rate=0.5, **options).to(x.dtype).train()
    x = x.detach().requires_grad_(x.requires_grad)
    torch.manual_seed(5)  # for drop path
    with torch.autocast('cpu', dtype=torch.bfloat16, enabled=autocast):
        levels = made(x)
    total(levels).backward()
    gradients = {key: p.grad for key, p in made.named_parameters()}
    return levels, gradients | ({'image': x.grad} if x.requires_grad else {})


@every_family
@every_case
@pytest.mark.parametrize('with_cp', [False, True], ids=['stored', 'with_cp'])
def test_lean_gives_the_same_bits(name, grid_mode, size, with_cp):
    x = images(2, 3, *size).requires_grad_(not with_cp)  # images need no gradient
    got, wanted = (
        step(name, x, grid_mode=grid_mode, with_cp=with_cp and lean, lean=lean)
        for lean in (True, False)
    )
    assert all(torch.equal(a, b) for a, b in zip(got[0], wanted[0], strict=True))
    assert got[1].keys() == wanted[1].keys()
    for key, gradient in wanted[1].items():
        assert torch.equal(got[1][key], gradient), key
        assert gradient.isfinite().all(), key


@every_family
@pytest.mark.parametrize('act', ['ReLU', 'PReLU'])
def test_lean_with_other_activations(name, act):
    got, wanted = (
        step(name, images(2, 3, 45, 37), act_cfg=dict(type=act), lean=lean)[1]
        for lean in (True, False)
    )
    for key, gradient in wanted.items():
        assert torch.equal(got[key], gradient), key


@every_family
def test_lean_under_autocast(name):
    x = images(2, 3, 45, 37)
    got, wanted = (step(name, x, autocast=True, lean=lean) for lean in (True, False))
    for a, b in zip(got[0], wanted[0], strict=True):
        assert relative_error(a, b) < 1e-6
    scale = max(gradient.abs().max() for gradient in wanted[1].values())
    for key, gradient in wanted[1].items():
        assert (got[1][key] - gradient).abs().max() < 2 * torch.finfo(torch.bfloat16).eps * scale


# Of the published sizes' blocks, whose ratio of channels to positions decides.
@pytest.mark.parametrize(
    ('name', 'arch', 'ratio'),
    [
        ('GMLP', dict(depths=(4, 4, 4, 4), dim=128), 1.6),
        ('ResMLP', dict(depths=(1, 1, 1, 1), dim=384), 1.6),
        (
            'MLPMixer',
            dict(depths=(1, 1, 1, 1), dim=512, token_mlp_dim=256, channel_mlp_dim=2048),
            1.6,
        ),
    ],
)
def test_lean_keeps_less(name, arch, ratio):
    x = images(1, 3, 224, 224)
    kept = {}
    for lean in (True, False):
        made = build(name, arch, lean=lean).train()
        kept[lean] = held_bytes(lambda made=made: made(x))
    assert kept[False] > ratio * kept[True]
    assert build(name, arch).lean
