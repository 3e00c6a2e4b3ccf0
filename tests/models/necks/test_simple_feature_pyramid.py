"""The pyramid made of one map: sizes, values, where each position looks, errors, export."""

import math
import warnings
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS as ROOT
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from mmwave.models import SimpleFeaturePyramid
from mmwave.models.layers.norm import LayerNorm2d
from tests.contracts import compiled, images, relative_error, total

ALL = (4, 2, 1, 0.5, 0.25)


def neck(in_channels: int = 8, out_channels: int = 6, **options: object) -> SimpleFeaturePyramid:
    """A pyramid whose norms are not the identity and whose biases are not zero."""
    torch.manual_seed(0)
    model = SimpleFeaturePyramid(in_channels, out_channels, **options)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            nn.init.uniform_(parameter, *((0.5, 1.5) if 'weight' in name else (-0.5, 0.5)))
    return model


@pytest.mark.parametrize('size', [(1, 1), (2, 3), (7, 5), (8, 12), (25, 37)])
@pytest.mark.parametrize('scales', [ALL, (4, 2, 1, 0.5), (2, 1, 0.5), (2, 0.25), (1,), (0.5,)])
def test_levels_have_the_sizes_of_their_scales(scales, size):
    outputs = neck(scales=scales, num_outs=len(scales) + 2)((images(2, 8, *size),))
    wanted = [tuple(math.ceil(side * scale) for side in size) for scale in scales]
    for _ in range(2):
        wanted.append(tuple(math.ceil(side / 2) for side in wanted[-1]))
    assert [o.shape for o in outputs] == [(2, 6, *sides) for sides in wanted]


def test_one_level_a_scale_by_default():
    assert len(neck()((images(1, 8, 4, 4),))) == 4
    widths = [o.shape[1] for o in SimpleFeaturePyramid(8)((images(1, 8, 4, 4),))]
    assert widths == [256] * 4


@pytest.mark.parametrize('stride', [16, 14, 8, 3.5])
def test_strides_are_pixels_per_position(stride):
    model = neck(scales=ALL, num_outs=7)
    strides = model.strides(stride)
    assert strides == tuple(stride * k for k in (0.25, 0.5, 1, 2, 4, 8, 16))
    outputs = model((images(1, 8, 32, 64),))
    for output, step in zip(outputs, strides, strict=True):
        assert tuple(side * step for side in output.shape[2:]) == (32 * stride, 64 * stride)


def layer_norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Each position's channels to mean 0 and variance 1, then scaled and shifted."""
    mean = x.mean(dim=1, keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=1, keepdim=True)
    weight, bias = (state[f'{name}.{p}'][:, None, None] for p in ('weight', 'bias'))
    return (x - mean) / (variance + 1e-6).sqrt() * weight + bias


def deconvolution(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    """Each position becomes 2 x 2 of its own: weight (in, out, 2, 2)."""
    apart = torch.einsum('nchw,cdij->ndhiwj', x, state[f'{name}.weight'])
    return apart.flatten(4, 5).flatten(2, 3) + state[f'{name}.bias'][:, None, None]


def pooled(x: Tensor, side: int) -> Tensor:
    rows = [r.amax(dim=2, keepdim=True) for r in x.split(side, dim=2)]
    return torch.cat([c.amax(dim=3, keepdim=True) for c in torch.cat(rows, 2).split(side, 3)], 3)


def test_values_are_the_definition_s():
    """Against every operation written out, of other torch functions where there are any."""
    model = neck(scales=ALL, num_outs=6).double()
    state, x = model.state_dict(), images(2, 8, 5, 7).double()
    twice = deconvolution(x, state, 'levels.0.resample.0')
    twice = F.gelu(layer_norm(twice, state, 'levels.0.resample.1'))
    maps = [
        deconvolution(twice, state, 'levels.0.resample.3'),
        deconvolution(x, state, 'levels.1.resample.0'),
        x,
        pooled(x, 2),
        pooled(x, 4),
    ]
    assert [m.shape[1] for m in maps] == [2, 4, 8, 8, 8]
    wanted = []
    for i, level in enumerate(maps):
        weight = state[f'levels.{i}.project.weight'].flatten(1)
        projected = torch.einsum('nchw,dc->ndhw', level, weight)
        projected = layer_norm(projected, state, f'levels.{i}.project_norm')
        convolved = F.conv2d(projected, state[f'levels.{i}.conv.weight'], padding=1)
        wanted.append(layer_norm(convolved, state, f'levels.{i}.norm'))
    wanted.append(wanted[-1][:, :, ::2, ::2])
    assert len(state) == 8 + 5 * 6  # all of them are used above
    for got, level in zip(model((x,)), wanted, strict=True):
        assert relative_error(got, level) < 1e-12


def test_layer_norm_is_over_the_channels_of_each_position():
    norm = LayerNorm2d(16)
    assert isinstance(norm, nn.LayerNorm)  # which optimizer constructors know by its class
    x = 3 * images(2, 16, 5, 4) + torch.arange(20.0).view(5, 4)
    y = norm(x)
    torch.testing.assert_close(y.mean(dim=1), torch.zeros(2, 5, 4), rtol=0, atol=1e-5)
    torch.testing.assert_close(y.var(dim=1, correction=0), torch.ones(2, 5, 4), rtol=0, atol=1e-4)
    x[:, :, 1, 2] += 100 * images(2, 16)
    changed = (norm(x) != y).any(dim=1).any(dim=0)
    assert changed.nonzero().tolist() == [[1, 2]]


@pytest.mark.parametrize('scale', ALL)
def test_positions_look_at_the_pixels_they_stand_for(scale):
    """Positions of a level at scale s cover 1 / s of the map, and see that and one neighbour."""
    model, x = neck(scales=(scale,)).double(), images(1, 8, 11, 13).double().requires_grad_()
    (level,) = model((x,))
    for row in range(0, level.shape[2], 3):
        column = level.shape[3] - 1 - row % 2
        (gradient,) = torch.autograd.grad(total((level[:, :, row, column],)), x, retain_graph=True)
        seen = gradient[0].abs().amax(dim=0) > 0
        for place, sides, axis in ((row, 11, 1), (column, 13, 0)):
            found = seen.any(dim=axis).nonzero().flatten().tolist()
            first, end = (place - 1) / scale, (place + 2) / scale
            allowed = range(max(math.floor(first), 0), min(math.ceil(end), sides))
            assert set(found) <= set(allowed)
            if scale >= 1:
                assert set(found) == set(allowed)


@pytest.mark.parametrize(('scale', 'size'), [(0.5, (5, 6)), (0.25, (6, 9))])
def test_pooling_loses_no_row_of_an_odd_map(scale, size):
    model, x = neck(scales=(scale,)), images(1, 8, *size)
    (before,) = model((x,))
    x[:, :, -1, -1] += 100 * torch.arange(8)
    (after,) = model((x,))
    assert (after != before)[:, :, -1, -1].any()


def test_further_levels_are_every_second_position():
    outputs = neck(scales=(2, 1), num_outs=4)((images(2, 8, 7, 10),))
    assert len(outputs) == 4
    for fine, coarse in pairwise(outputs[1:]):
        assert torch.equal(coarse, fine[:, :, ::2, ::2])


@pytest.mark.parametrize('size', [(1, 1), (3, 5)])
def test_every_parameter_and_the_map_get_a_gradient(size):
    model, x = neck(scales=ALL, num_outs=6), images(2, 8, *size).requires_grad_()
    total(model((x,))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name
    assert x.grad.abs().min() > 0


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (dict(scales=()), r'scales=\(\) must be decreasing and among 4, 2, 1, 0\.5, 0\.25'),
        (dict(scales=(8, 4)), r'scales=\(8, 4\)'),
        (dict(scales=(4, 3)), r'scales=\(4, 3\)'),
        (dict(scales=[1, 2]), r'scales=\(1, 2\) must be decreasing'),
        (dict(scales=(2, 2, 1)), r'scales=\(2, 2, 1\) must be decreasing'),
        (dict(num_outs=3), 'num_outs=3 must be at least 4'),
        (dict(in_channels=6), 'in_channels=6 must be a positive multiple of 4 for scale 4'),
        (dict(in_channels=5, scales=(2, 1)), 'in_channels=5 must be a positive multiple of 2'),
        (dict(in_channels=0, scales=(1,)), 'in_channels=0 must be a positive'),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(**{'in_channels': 8, **options})


def test_in_channels_is_one_number():
    with pytest.raises(TypeError, match=r'in_channels=\[8\] must be one number'):
        SimpleFeaturePyramid([8])


def test_any_width_that_can_be_halved():
    for channels, scale in ((5, 1), (5, 0.5), (6, 2), (12, 4)):
        (level,) = neck(channels, scales=(scale,))((images(1, channels, 4, 4),))
        assert level.isfinite().all()


def test_only_one_map_is_taken():
    model, x = neck(), images(1, 8, 4, 4)
    assert all(map(torch.equal, model([x]), model((x,))))
    with pytest.raises(ValueError, match=r'expected one map, got 2: .* out_indices=\(-1,\)'):
        model((x, x))
    with pytest.raises(ValueError, match='expected one map, got 0'):
        model(())
    with pytest.raises(TypeError, match='expected a tuple of one map, got a Tensor'):
        model(x)
    for shape in ((1, 7, 4, 4), (8, 4, 4)):
        with pytest.raises(ValueError, match=r'expected a map \(N, 8, H, W\), got one of shape'):
            model((images(*shape),))


def test_builds_in_every_scope():
    for scope in ('mmwave', 'mmengine', 'mmdet', 'mmseg'):
        with DefaultScope.overwrite_default_scope(scope):
            model = ROOT.build(dict(type='mmwave.SimpleFeaturePyramid', in_channels=8))
        assert type(model) is SimpleFeaturePyramid


def test_starts_as_torch_s_layers_do():
    torch.manual_seed(0)
    model = SimpleFeaturePyramid(8, 6)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.init_weights()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    bound = 1 / math.sqrt(6 * 9)  # of torch: one over the root of the fan-in
    weight = before['levels.0.conv.weight']
    assert 0.9 * bound < weight.abs().max() <= bound
    named = SimpleFeaturePyramid(8, 6, init_cfg=dict(type='Constant', layer='Conv2d', val=0.25))
    named.init_weights()
    assert (named.levels[0].conv.weight == 0.25).all()


def test_channels_last_gives_the_same():
    model, x = neck(scales=ALL), images(2, 8, 7, 10)
    wanted = model((x,))
    model = model.to(memory_format=torch.channels_last)
    got = model((x.contiguous(memory_format=torch.channels_last),))
    for a, b in zip(got, wanted, strict=True):
        assert relative_error(a, b) < 2e-6  # measured 5e-7
        assert a.is_contiguous(memory_format=torch.channels_last)


def test_bfloat16_autocast():
    model, x = neck(scales=ALL, num_outs=6), images(2, 8, 7, 10)
    wanted = model((x,))
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = model((x,))
    for a, b in zip(got, wanted, strict=True):
        assert a.dtype == torch.bfloat16
        assert ((a - b).norm() / b.norm()).item() < 0.02  # measured 0.009
    total(got).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.export
def test_exports_for_every_size():
    """Of maps none of whose levels is a single position, which torch.export sets apart."""
    model, free = neck(scales=ALL, num_outs=6).eval(), torch.export.Dim.DYNAMIC
    sample = images(2, 8, 10, 14)
    program = torch.export.export(
        model, ((sample,),), dynamic_shapes=(({0: free, 2: free, 3: free},),)
    ).module()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # the checks of the input are evaluated once
        traced = torch.jit.trace(model, ((sample,),))
    whole = compiled(model, fullgraph=True)
    for shape in ((1, 8, 9, 9), (3, 8, 11, 13), (1, 8, 32, 24)):
        x = images(*shape)
        with torch.no_grad():
            wanted = model((x,))
            for graph in (program, traced, whole):
                for a, b in zip(graph((x,)), wanted, strict=True):
                    assert relative_error(a, b) < 1e-6
