"""What backbones that are tied to a grid do on images of other sizes than their trained one."""

import copy

import pytest
import torch

from mmwave.models.backbones.grid import (
    GridBackbone,
    PlainBackbone,
    WindowBackbone,
    check_grid_mode,
    four_stages,
    grid_pair,
    output_depths,
)
from mmwave.models.layers import DropPath
from mmwave.ops.windows import counts
from tests.contracts import build, images, registered, relative_error, total

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
    total(made(x)).backward()
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


@pytest.mark.parametrize(
    ('depth', 'parts'), [(30, (7, 8, 7, 8)), (12, (3,) * 4), (3, (0, 1, 1, 1)), (1, (0, 0, 0, 1))]
)
def test_blocks_fall_into_four_parts(depth, parts):
    assert four_stages(depth) == parts


def test_an_output_before_the_first_block_is_the_stem_normed():
    made = build('GMLP', dict(PLAIN, depths=(0, 1, 0, 1))).eval()
    assert [len(stage) for stage in made.stages] == [0, 1, 0, 1]
    x = images(1, 3, 33, 40)
    first, second, third, _ = run(made, x)
    assert torch.equal(second, third)  # a part without blocks between them, norms at their start
    made.stages[1][0].norm.weight.data.fill_(2.0)
    assert torch.equal(run(made, x)[0], first)
    assert made.layer_depth('stages.3.0.fc1.weight') == (2, 4)


# Compiled graphs for all sizes: test_compile.py.
@pytest.mark.export
@pytest.mark.parametrize('name', ['GMLP', 'ViP'])  # positions mixed over both axes, and over one
def test_an_exported_graph_of_the_resized_model_holds_for_other_sizes(name):
    made = model(name, 'resize', out_indices=(1,))
    side = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        made,
        (images(2, 3, 60, 40).double(),),
        dynamic_shapes=({0: side, 2: side, 3: side},),
    )
    graph = program.module()
    for shape in ((1, 3, 64, 72), (2, 3, 100, 37)):
        x = images(*shape).double()
        for got, wanted in zip(run(graph, x), run(made, x), strict=True):
            assert relative_error(got, wanted) < 1e-13


def test_who_is_tied_to_a_grid():
    """So that a family of these bases is tested here."""
    families = {n for n, c in registered().items() if issubclass(c, GridBackbone)}
    assert families == set(ARCHS)
    plain = {n for n, c in registered().items() if issubclass(c, PlainBackbone)}
    assert plain == set(ARCHS) - {'ViP'}


def test_trained_sizes():
    made = model('ViP', archs=OBLONG)
    assert made.trained_size == (32, 48)
    assert made.size_constraint.only is None
    assert model('ViP', 'strict', OBLONG).size_constraint.only == (32, 48)


def test_windows_of_a_stage_follow_the_mode():
    for mode in MODES:
        made = build('PosMLP', 't', grid_mode=mode)
        assert isinstance(made, WindowBackbone)
        windows = made.windows(3)
        assert windows.trained == (7, 7)
        assert (windows.resize, windows.filled) == (mode == 'resize', mode == 'strict')


def test_names_of_modes():
    for mode in MODES:
        check_grid_mode('MLP', mode)
    with pytest.raises(ValueError, match=r"unknown grid_mode 'tile': MLP has window, resize, str"):
        check_grid_mode('MLP', 'tile')


def test_grids_as_one_number_or_two():
    assert grid_pair('grid', 4) == (4, 4)
    assert grid_pair('grid', [4, 5]) == (4, 5)
    for wrong in (0, 4.0, (4, 0), (4,), (4, 5, 6), (4, 5.0)):
        with pytest.raises(ValueError, match=r'grid=.* must be one or two positive whole numbers'):
            grid_pair('grid', wrong)


def test_depths_may_be_zero_but_not_all():
    assert output_depths([0, 1, 0, 2]) == (0, 1, 0, 2)
    for wrong in (12, (1, 0), (0, 0, 0, 0), (1,) * 5, (1, 1, 1, -1), (1, 1, 1, 1.0)):
        with pytest.raises(ValueError, match=r'depths=.* must be 4 whole numbers.*not all zero'):
            output_depths(wrong)
