"""What GMLP, ResMLP, MLPMixer and ViP do on images of other sizes than their trained one."""

import copy

import pytest
import torch

from mmwave.models.backbones.grid import four_stages
from mmwave.models.backbones.vip import PermuteMLP
from mmwave.models.layers import DropPath
from mmwave.models.layers.token_grid import WindowTokens
from mmwave.models.layers.windows import mask_of
from mmwave.ops.windows import counts, cut
from tests.contracts import build, compiled, images, relative_error

# Windows of 32 pixels, 4 x 4 positions; not square where it says so.
PLAIN = dict(depths=(1, 1, 1, 1), dim=8, patch_size=8, grid=4)
ARCHS = {
    'GMLP': PLAIN,
    'ResMLP': dict(PLAIN, scale_init=1.0),
    'MLPMixer': dict(PLAIN, token_mlp_dim=6, channel_mlp_dim=12),
    'ViP': dict(depths=(1, 1, 1, 1), dims=(8, 16, 16, 16), patch_size=4, grids=(8, 4, 4, 4)),
}
OBLONG = {
    'GMLP': dict(PLAIN, grid=(4, 5)),
    'ResMLP': dict(PLAIN, grid=(4, 5)),
    'MLPMixer': dict(ARCHS['MLPMixer'], grid=(4, 5)),
    'ViP': dict(ARCHS['ViP'], dims=(24, 24, 24, 24), grids=((8, 12), (4, 6), (4, 6), (2, 3))),
}
MODES = ('window', 'resize', 'strict')
# The layers that mix positions, by what their names end in; of them the ones that read positions.
MIXERS = {
    'GMLP': ('gate.proj.weight',),
    'ResMLP': ('tokens.weight',),
    'MLPMixer': ('token_mlp.fc1.weight',),
    'ViP': ('mixer.height.weight', 'mixer.width.weight'),
}

every_family = pytest.mark.parametrize('name', ARCHS)


def model(name, grid_mode='window', archs=ARCHS, **options):
    """A model whose every part has a say, in float64."""
    made = build(name, archs[name], grid_mode=grid_mode, **options).double().eval()
    generator = torch.Generator().manual_seed(7)
    for parameter in made.parameters():
        inputs = parameter[0].numel() if parameter.dim() > 1 else 9
        with torch.no_grad():
            parameter.normal_(generator=generator).mul_(inputs**-0.5)
    return made


def run(made, x):
    with torch.no_grad():
        return made(x)


@every_family
@pytest.mark.parametrize('archs', [ARCHS, OBLONG], ids=['square', 'oblong'])
def test_all_modes_are_the_same_at_the_trained_size(name, archs):
    size = model(name, archs=archs).trained_size
    x = images(2, 3, *size).double()
    wanted = run(model(name, archs=archs), x)
    for mode in MODES[1:]:
        for got, want in zip(run(model(name, mode, archs), x), wanted, strict=True):
            assert torch.equal(got, want)
    for dtype in (torch.float32, torch.bfloat16):
        outputs = [run(model(name, mode, archs).to(dtype), x.to(dtype)) for mode in MODES]
        for levels in zip(*outputs, strict=True):
            assert all(torch.equal(level, levels[0]) for level in levels)


@every_family
def test_modes_differ_elsewhere(name):
    x = images(1, 3, 40, 64).double()
    window, resized = (run(model(name, mode), x)[-1] for mode in ('window', 'resize'))
    assert window.shape == resized.shape
    assert relative_error(window, resized) > 0.01


@every_family
def test_strict_names_the_size_it_takes(name):
    with pytest.raises(ValueError, match=r'image of 64 x 32 .* must have 32 x 32'):
        model(name, 'strict')(images(1, 3, 64, 32).double())
    with pytest.raises(ValueError, match=r"unknown grid_mode 'tile'.*window, resize, strict"):
        build(name, ARCHS[name], grid_mode='tile')


# Without ViP, which blends by means over the whole image: see the test of its mixer.
@pytest.mark.parametrize('name', [name for name in ARCHS if name != 'ViP'])
@pytest.mark.parametrize('size', [(40, 64), (45, 37), (64, 33)])
def test_positions_outside_the_image_have_no_say(name, size):
    """A window that the image fills in part mixes as a matrix without the columns outside."""
    made = model(name)
    x = images(1, 3, *size).double()
    got = run(made, x)
    rows, columns = counts(size, (32, 32))
    for row in range(rows):
        for column in range(columns):
            piece = x[:, :, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            alone = copy.deepcopy(made)
            high, wide = (-(-side // 8) for side in piece.shape[2:])
            there = torch.zeros(4, 4, dtype=torch.bool)
            there[:high, :wide] = True
            for key, parameter in alone.named_parameters():
                if key.endswith(MIXERS[name]):
                    parameter.data[:, ~there.flatten()] = 0
            filled = torch.zeros(1, 3, 32, 32).double()
            filled[:, :, : piece.shape[2], : piece.shape[3]] = piece
            for level, wanted in zip(got, run(alone, filled), strict=True):
                here = level[:, :, 4 * row : 4 * row + high, 4 * column : 4 * column + wide]
                assert relative_error(here, wanted[:, :, :high, :wide]) < 1e-12


@every_family
@pytest.mark.parametrize('size', [(64, 96), (96, 32)])
def test_a_shift_by_windows_shifts_the_outputs(name, size):
    made = model(name)
    x = images(1, 3, *size).double()
    moved = run(made, x.roll((32, 64), dims=(2, 3)))
    for level, got, info in zip(run(made, x), moved, made.stage_info, strict=True):
        steps = (32 // info.stride, 64 // info.stride)
        assert relative_error(got, level.roll(steps, dims=(2, 3))) < 1e-12
    nudged = run(made, x.roll((8, 8), dims=(2, 3)))
    assert relative_error(nudged[-1], run(made, x)[-1].roll((1, 1), dims=(2, 3))) > 0.01


@every_family
@pytest.mark.parametrize('size', [(64, 96), (40, 33), (32, 100)])
def test_constant_maps_stay_constant_when_resized(name, size):
    """Where the trained operator keeps them so: its matrices' rows have the same sum."""
    made = model(name, 'resize')
    for key, parameter in made.named_parameters():
        if key.endswith(('gate.proj.bias', 'tokens.bias', 'token_mlp.fc2.bias')):
            parameter.data.fill_(0.3)
        elif key.endswith(('gate.proj.weight', 'tokens.weight')):
            parameter.data /= parameter.data.sum(dim=1, keepdim=True)
        elif key.endswith('token_mlp.fc2.weight'):
            parameter.data[:] = parameter.data[:1]
        elif key.endswith(MIXERS['ViP']):
            stage = int(key.split('.')[1])
            segment = made.arch.dims[stage] // made.arch.grids[stage][0]
            matrix = parameter.data.view(-1, segment, parameter.shape[1])
            matrix[:] = matrix[:1].clone()
    # Nothing that a stem makes of a constant image is zero or at an edge: multiples of a patch.
    size = [8 * -(-side // 8) for side in size]
    x = torch.ones(1, 3, *size).double() * images(1, 3, 1, 1).double()
    for level in run(made, x):
        assert relative_error(level, level.mean(dim=(2, 3), keepdim=True).expand_as(level)) < 1e-11


@every_family
@pytest.mark.parametrize('grid_mode', ['window', 'resize'])
def test_every_mode_trains(name, grid_mode):
    made = model(name, grid_mode).train()
    x = images(2, 3, 45, 70).double().requires_grad_()
    sum((level * images(*level.shape)).sum() for level in made(x)).backward()
    gradients = [p.grad for p in made.parameters()]
    assert all(g is not None and g.isfinite().all() and g.abs().max() > 0 for g in gradients)
    assert (x.grad.abs().sum(dim=1) > 0).all()


@every_family
def test_windows_of_an_image_are_dropped_together(name):
    torch.manual_seed(0)
    made = model(name, drop_path_rate=0.5, out_indices=(0, 1, 2, 3)).train()
    drops = [m for m in made.modules() if isinstance(m, DropPath)]
    assert drops
    calls = []
    for drop in drops:
        drop.register_forward_hook(lambda _, given, out: calls.append(given[0].shape))
    made(images(3, 3, 64, 64).double())
    assert set(calls) == {(3, 1)}


def test_vip_mixes_segments_of_columns_and_rows():
    """The three branches and their blend, window by window, from the definition."""
    torch.manual_seed(0)
    size, window, channels = (7, 5), (4, 3), 24
    mixer = PermuteMLP(channels, dict(type='GELU')).double()
    x = images(2, *size, channels).double()
    shape = counts(size, window)
    mask = mask_of(size, window, shape, like=x).permute(0, 2, 3, 1)
    own = cut(x.permute(0, 3, 1, 2), window, shape).permute(0, 2, 3, 1)
    grid = WindowTokens(size, window, shape, mask)
    got = grid.to_map(mixer(own, grid)).permute(0, 2, 3, 1)

    height, width = (
        layer.weight.view(side, channels // side, side, channels // side)
        for layer, side in ((mixer.height, 4), (mixer.width, 3))
    )
    h, w = torch.zeros_like(x), torch.zeros_like(x)
    for top in range(0, size[0], 4):
        for left in range(0, size[1], 3):
            piece = x[:, top : top + 4, left : left + 3]
            high, wide = piece.shape[1:3]
            where = (slice(None), slice(top, top + high), slice(left, left + wide))
            columns = piece.unflatten(3, (4, 6))  # segment, place in it
            rows = piece.unflatten(3, (3, 8))
            h[where] = torch.einsum('aubv,nbjkv->najku', height[:high, :, :high], columns).flatten(
                3
            )
            w[where] = torch.einsum('aubv,nibkv->niaku', width[:wide, :, :wide], rows).flatten(3)
    c = mixer.channel(x)
    weights = mixer.reweight((h + w + c).mean(dim=(1, 2))).view(2, channels, 3).softmax(dim=2)
    blended = sum(part * weights[:, None, None, :, i] for i, part in enumerate((h, w, c)))
    assert relative_error(got, mixer.proj(blended)) < 1e-13


@pytest.mark.parametrize(
    ('name', 'changes', 'message'),
    [
        ('GMLP', dict(grid=(4, 0)), r'grid=\(4, 0\) must be one or two positive whole numbers'),
        ('GMLP', dict(dim=0), 'dim=0 must be a positive whole number'),
        ('GMLP', dict(dim=3, mlp_ratio=3), 'dim=3 times mlp_ratio=3 must be even'),
        ('GMLP', dict(grid=4.0), r'grid=4\.0 must be one or two positive whole numbers'),
        ('ResMLP', dict(depths=(1, 0)), r'depths=\(1, 0\) must be 4 whole numbers'),
        ('ResMLP', dict(depths=12), 'depths=12 must be 4 whole numbers'),
        ('MLPMixer', dict(depths=(0,) * 4), r'depths=.* not all zero'),
        ('MLPMixer', dict(depths=(1,) * 5), r'depths=.* must be 4 whole numbers'),
        ('MLPMixer', dict(token_mlp_dim=0.5), r'token_mlp_dim=0\.5 must be a positive whole'),
        ('ViP', dict(grids=(8, 4, 4)), r'grids=\(8, 4, 4\) must be 4, each as large'),
        ('ViP', dict(grids=(8, 3, 3, 3)), r'grids=.* half of it'),
        ('ViP', dict(dims=(8, 18, 18, 18)), r'dims=.* must be multiples of the sides of grids='),
        ('ViP', dict(dims=(8, 16, 32, 32)), r'dims=.* may change only where the map is halved'),
    ],
)
def test_bad_fields_are_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        build(name, dict(ARCHS[name], **changes))


def test_sizes_that_are_no_part_of_what_is_trained():
    a, b = (build('ResMLP', dict(PLAIN, scale_init=s), out_indices=(3,)) for s in (0.1, 1e-6))
    assert a.arch == b.arch
    assert a.stages[0][0].scale1[0].item() == pytest.approx(0.1)
    assert b.stages[0][0].scale2[0].item() == pytest.approx(1e-6)


def test_gates_of_gmlp_start_as_one():
    block = build('GMLP', PLAIN).stages[0][0]
    assert (block.gate.proj.bias == 1).all()
    assert 0 < block.gate.proj.weight.abs().max() < 1e-5
    with pytest.raises(ValueError, match='gate_norm_eps=0 must be above 0'):
        build('GMLP', PLAIN, gate_norm_eps=0)


def test_layers_of_mlp_mixer_start_with_a_variance_of_one_over_their_inputs():
    block = build('MLPMixer', 's16').stages[0][0]
    layers = [m for m in block.modules() if isinstance(m, torch.nn.Linear)]
    assert len(layers) == 4
    for layer in layers:
        assert layer.weight.std().item() == pytest.approx(layer.in_features**-0.5, rel=0.02)
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ('depth', 'parts'), [(30, (7, 8, 7, 8)), (12, (3,) * 4), (3, (0, 1, 1, 1)), (1, (0, 0, 0, 1))]
)
def test_blocks_fall_into_four_parts(depth, parts):
    assert four_stages(depth) == parts


def test_a_tap_before_the_first_block_is_the_stem_normed():
    made = build('GMLP', dict(PLAIN, depths=(0, 1, 0, 1))).eval()
    assert [len(stage) for stage in made.stages] == [0, 1, 0, 1]
    x = images(1, 3, 33, 40)
    first, second, third, _ = run(made, x)
    assert torch.equal(second, third)  # a part without blocks between them, norms at their start
    made.stages[1][0].norm.weight.data.fill_(2.0)
    assert torch.equal(run(made, x)[0], first)
    assert made.layer_depth('stages.3.0.fc1.weight') == (2, 4)


@pytest.mark.export
@pytest.mark.parametrize('name', ['GMLP', 'ViP'])  # positions mixed over both axes, and over one
def test_a_graph_of_the_resized_model_holds_for_other_sizes(name):
    made = model(name, 'resize')
    graphs = [compiled(made, fullgraph=True)]
    side = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        made,
        (images(2, 3, 96, 128).double(),),
        dynamic_shapes=({0: side, 2: side, 3: side},),
    )
    graphs.append(program.module())
    for shape in ((1, 3, 64, 72), (2, 3, 100, 37)):
        x = images(*shape).double()
        for graph in graphs:
            for got, wanted in zip(run(graph, x), run(made, x), strict=True):
                assert relative_error(got, wanted) < 1e-13
