"""torchvision's ops in the place of mmcv's compiled ones.

The stand-in is what is tested, also where mmcv has its own: mmcv's functions call it.
"""

import copy
import math
import sys
from functools import partial

import pytest
import torch
from mmcv.ops import (
    DeformConv2d,
    ModulatedDeformConv2d,
    RoIAlign,
    batched_nms,
    nms,
    sigmoid_focal_loss,
    soft_nms,
)

from mmwave.mmcv_ops import environment, precision
from mmwave.mmcv_ops import torchvision_ops as stand_in
from tests.mmcv_ops.definitions import (
    grads,
    same,
    slow_deform_conv,
    slow_focal_loss,
    slow_nms,
    slow_roi_align,
    slow_soft_nms,
)

MODULES = {
    name: sys.modules[f'mmcv.ops.{name}']
    for name in ('nms', 'roi_align', 'focal_loss', 'deform_conv', 'modulated_deform_conv')
}
LOW = [torch.float16, torch.bfloat16]
compiled_mmcv = [
    pytest.mark.compiled_mmcv,
    pytest.mark.skipif(
        not environment._has_compiled_ops(), reason='mmcv was installed without its compiled ops'
    ),
]


@pytest.fixture(autouse=True)
def served(monkeypatch):
    """mmcv's functions call the stand-in, whatever is installed."""
    for module in MODULES.values():
        monkeypatch.setattr(module, 'ext_module', stand_in)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


# NMS


def boxes_of(count, rng, dtype=torch.float64):
    corners = torch.rand(count, 4, generator=rng, dtype=dtype) * 40 - 10
    corners[:, 2:] = corners[:, :2] + 20 + corners[:, 2:].abs() / 2
    scores = torch.randperm(count, generator=rng).to(dtype) / count
    return corners, scores


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('threshold', [0.0, 0.2, 0.5])
def test_nms(offset, threshold, rng):
    boxes, scores = boxes_of(60, rng)
    dets, kept = nms(boxes, scores, threshold, offset)
    wanted = slow_nms(boxes.tolist(), scores.tolist(), threshold, offset)
    assert kept.tolist() == wanted
    assert 1 < len(wanted) < 60
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[kept])
    # mmcv's own NumPy way, its limit of numbers, and a part of a larger tensor.
    assert nms(boxes.numpy(), scores.numpy(), threshold, offset)[1].tolist() == wanted
    assert nms(boxes, scores, threshold, offset, max_num=2)[1].tolist() == wanted[:2]
    wide = torch.cat([boxes, boxes], 1)[:, 2:6].roll(2, 1)
    assert nms(wide[:, :], scores, threshold, offset)[1].tolist() == wanted


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_compares_as_floats_do(offset):
    """An IoU of 0.6 is not above a threshold of 0.6, though float32 of it is above 0.6."""
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 6, 10]])
    boxes[:, 2:] -= offset
    scores = torch.tensor([0.9, 0.8])
    for threshold, number in ((0.6, 2), (0.59, 1)):
        assert len(nms(boxes, scores, threshold, offset)[1]) == number


@pytest.mark.parametrize('offset', [0, 1])
def test_nms_of_nothing_and_of_empty_boxes(offset):
    none = torch.zeros(0, 4)
    dets, kept = nms(none, torch.zeros(0), 0.5, offset)
    assert dets.shape == (0, 5)
    assert kept.shape == (0,)
    assert kept.dtype is torch.int64
    empty = torch.tensor([[3.0, 1, 3, 1], [3, 1, 3, 1], [9, 9, 5, 5]])
    _, kept = nms(empty, torch.tensor([0.3, 0.2, 0.1]), 0.5, offset)
    assert kept.tolist() == ([0, 1, 2] if offset == 0 else [0, 2])


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('dtype', LOW)
def test_nms_in_low_precision_beside_float32(dtype, offset, rng):
    boxes, scores = boxes_of(40, rng, torch.float32)
    boxes = boxes.to(dtype)
    wanted = slow_nms(boxes.tolist(), scores.tolist(), 0.3, offset)
    for others in (scores, scores.double()):
        assert nms(boxes, others, 0.3, offset)[1].tolist() == wanted
    with torch.autocast('cpu', dtype):
        assert nms(boxes.float(), scores, 0.3, offset)[1].tolist() == wanted


def test_nms_sorts_scores_by_all_their_digits():
    boxes = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4]])
    scores = torch.tensor([0.5, 0.5 + 1e-12], dtype=torch.float64)
    assert nms(boxes, scores, 0.5)[1].tolist() == [1]


@pytest.mark.parametrize('kind', ['nms', 'soft_nms'])
def test_batched_nms_keeps_classes_apart(kind, rng):
    boxes, scores = boxes_of(50, rng)
    classes = torch.randint(0, 3, (50,), generator=rng)
    settings = dict(type=kind, iou_threshold=0.3)
    dets, kept = batched_nms(boxes, scores, classes, settings)
    expected = {}
    for c in range(3):
        rows = (classes == c).nonzero().flatten()
        part = boxes[rows].tolist(), scores[rows].tolist()
        if kind == 'nms':
            found = [(i, part[1][i]) for i in slow_nms(*part, 0.3, 0)]
        else:
            found = slow_soft_nms(*part, 'linear', 0.3, 0.5, 1e-3, 0)
        expected |= {int(rows[i]): score for i, score in found}
    assert kept.tolist() == sorted(expected, key=lambda i: -expected[i])
    assert dets[:, 4].tolist() == pytest.approx(sorted(expected.values(), reverse=True))


@pytest.mark.parametrize('offset', [0, 1])
@pytest.mark.parametrize('method', ['naive', 'linear', 'gaussian'])
def test_soft_nms(method, offset, rng):
    boxes, scores = boxes_of(60, rng)
    settings = dict(sigma=0.4, min_score=0.05, method=method, offset=offset)
    dets, kept = soft_nms(boxes, scores, 0.2, **settings)
    wanted = slow_soft_nms(boxes.tolist(), scores.tolist(), threshold=0.2, **settings)
    assert kept.tolist() == [i for i, _ in wanted]
    assert 1 < len(wanted) < 58
    assert torch.equal(dets[:, :4], boxes[kept])
    assert dets[:, 4].tolist() == pytest.approx([score for _, score in wanted], rel=1e-12)
    for dtype in LOW:
        dets, kept = soft_nms(boxes.to(dtype), scores.float(), 0.2, **settings)
        assert dets.dtype is dtype
        same([dets[:, 4]], [slow_scores(boxes.to(dtype), scores, settings)], rtol=1e-2, atol=0)
    none = soft_nms(boxes[:0], scores[:0], 0.2, **settings)
    assert [t.shape for t in none] == [(0, 5), (0,)]


def slow_scores(boxes, scores, settings):
    found = slow_soft_nms(boxes.tolist(), scores.tolist(), threshold=0.2, **settings)
    return torch.tensor([score for _, score in found])


def test_soft_nms_leaves_its_inputs(rng):
    boxes, scores = boxes_of(9, rng)
    before = boxes.clone(), scores.clone()
    soft_nms(boxes, scores, method='gaussian')
    assert all(map(torch.equal, (boxes, scores), before))


# RoIAlign

ROIS = torch.tensor(
    [
        [0, 1.3, 2.1, 9.7, 12.4],
        [1, -6.0, -3.0, 5.5, 30.0],  # leaves the image on three sides
        [1, 40.0, 40.0, 50.0, 60.0],  # outside
        [0, 4.0, 4.0, 4.0, 4.0],  # empty
        [2, 0.0, 0.0, 18.0, 14.0],
    ],
    dtype=torch.float64,
)


@pytest.mark.parametrize('aligned', [False, True])
@pytest.mark.parametrize('ratio', [0, 2])
def test_roi_align(aligned, ratio, rng):
    x = torch.randn(3, 2, 7, 9, generator=rng, dtype=torch.float64, requires_grad=True)
    layer = RoIAlign((2, 3), 0.5, ratio, 'avg', aligned)
    got = layer(x, ROIS)
    wanted = slow_roi_align(x, ROIS, (2, 3), 0.5, ratio, aligned)
    same([got], [wanted])
    same(*(grads(y, [x], torch.Generator().manual_seed(1)) for y in (got, wanted)))
    # Layouts: channels last, and a part of a larger map and of larger RoIs.
    parts = torch.zeros(3, 4, 7, 18, dtype=torch.float64)[:, 1:3, :, ::2]
    parts.copy_(x.detach())
    many = torch.cat([ROIS, ROIS], 1)[:, :5].flip(0).flip(0)
    for maps in (x.to(memory_format=torch.channels_last), parts):
        assert torch.equal(layer(maps, many.T.contiguous().T), got)


@pytest.mark.parametrize('dtype', LOW)
def test_roi_align_in_low_precision(dtype, rng):
    x = torch.randn(3, 2, 7, 9, generator=rng).to(dtype).requires_grad_()
    rois = ROIS.float()
    layer = RoIAlign((2, 3), 0.5)
    wide = x.detach().float().requires_grad_()
    with torch.autocast('cpu', dtype):
        got = layer(x, rois)
    wanted = layer(wide, rois)
    assert got.dtype is dtype
    assert torch.equal(got, wanted.to(dtype))
    factors = torch.rand(got.shape, generator=rng).to(dtype)
    (grad,) = torch.autograd.grad(got, x, factors)
    assert torch.equal(grad, torch.autograd.grad(wanted, wide, factors.float())[0].to(dtype))
    low_rois = layer(wide, rois.to(dtype))
    assert low_rois.dtype is torch.float32
    assert torch.equal(low_rois, layer(wide, rois.to(dtype).float()))


def test_roi_align_of_nothing():
    x = torch.zeros(2, 3, 8, 8, requires_grad=True)
    output = RoIAlign((7, 7))(x, torch.zeros(0, 5))
    assert output.shape == (0, 3, 7, 7)
    output.sum().backward()
    assert x.grad.shape == x.shape
    assert RoIAlign((7, 7))(x[:0], torch.zeros(0, 5)).shape == (0, 3, 7, 7)


def test_roi_align_adds_to_the_gradient():
    settings = dict(aligned_height=2, aligned_width=2, spatial_scale=1.0, sampling_ratio=0)
    none, rois = torch.zeros(0), torch.tensor([[0.0, 0, 0, 4, 4]])
    once = torch.zeros(1, 1, 4, 4)
    for buffer in (once, twice := once.clone()):
        for _ in range(1 if buffer is once else 2):
            stand_in.roi_align_backward(
                torch.ones(1, 1, 2, 2),
                rois,
                none,
                none,
                buffer,
                **settings,
                pool_mode=1,
                aligned=True,
            )
    assert torch.equal(twice, 2 * once)
    assert once.sum() > 0


@pytest.mark.parametrize(
    ('rois', 'message'),
    [
        (torch.zeros(3, 4), r'rois must be of shape \(N, 5\), not \(3, 4\)'),
        (torch.tensor([[2.0, 0, 0, 4, 4]]), 'an image that is not among the 2'),
        (torch.tensor([[-1.0, 0, 0, 4, 4]]), 'an image that is not among the 2'),
        (torch.tensor([[math.nan, 0, 0, 4, 4]]), 'an image that is not among the 2'),
    ],
)
def test_rois_that_do_not_fit_are_refused(rois, message):
    x, none = torch.zeros(2, 1, 8, 8), torch.zeros(0)
    settings = dict(aligned_height=2, aligned_width=2, spatial_scale=1.0, sampling_ratio=0)
    for op, first, last in (
        (stand_in.roi_align_forward, (x, rois, x.new_zeros(len(rois), 1, 2, 2)), (none, none)),
        (stand_in.roi_align_backward, (x.new_zeros(len(rois), 1, 2, 2), rois), (none, none, x)),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            op(*first, *last, **settings, pool_mode=1, aligned=True)
        assert '\n' not in str(caught.value)


def test_roi_align_by_maximum_is_missing():
    with pytest.raises(NotImplementedError, match=r"^roi_align with pool_mode='max': this mmcv"):
        RoIAlign((2, 2), pool_mode='max')(torch.zeros(1, 1, 4, 4), torch.zeros(1, 5))


# Focal loss


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 2.0])
def test_focal_loss(gamma, weighted, rng):
    logits = (torch.randn(6, 4, generator=rng, dtype=torch.float64) * 3).requires_grad_()
    target = torch.tensor([0, 3, 4, 1, 4, 2])  # 4: the background
    weight = torch.rand(4, generator=rng, dtype=torch.float64) if weighted else None
    wanted = slow_focal_loss(logits, target, gamma, 0.3, weight)
    for reduction, total in (('none', wanted), ('sum', wanted.sum()), ('mean', wanted.sum() / 6)):
        got = sigmoid_focal_loss(logits, target, gamma, 0.3, weight, reduction)
        same([got], [total])
        if reduction != 'none':
            same(*(torch.autograd.grad(y, logits, retain_graph=True) for y in (got, total)))
    for dtype in LOW:
        low = logits.detach().to(dtype).requires_grad_()
        with torch.autocast('cpu', dtype):
            got = sigmoid_focal_loss(low, target, gamma, 0.3, None, 'none')
        assert got.dtype is dtype
        exact = slow_focal_loss(low.double(), target, gamma, 0.3, None)
        same([got], [exact], rtol=1e-2, atol=1e-6)
    none = sigmoid_focal_loss(logits[:0], target[:0], gamma, 0.3, weight, 'none')
    assert none.shape == (0, 4)


def test_focal_loss_is_finite_where_the_answer_is_certain_and_wrong():
    logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
    loss = sigmoid_focal_loss(logits, torch.tensor([1]), 2.0, 0.25, None, 'none')
    # log of the least float32, as mmcv has it.
    limit = -math.log(torch.finfo(torch.float32).tiny)
    assert loss.flatten()[:2].tolist() == pytest.approx([0.75 * limit, 0.25 * limit])
    loss.sum().backward()
    assert logits.grad.isfinite().all()


# Deformable convolution

CONVS = [
    dict(),
    dict(stride=2, padding=0, groups=2),
    dict(dilation=2, padding=2, deform_groups=2),
    dict(groups=2, deform_groups=4, kernel_size=1, padding=0),
]


def conv_case(settings, rng, modulated, dtype=torch.float64):
    settings = (
        dict(kernel_size=3, stride=1, padding=1, dilation=1, groups=1, deform_groups=1) | settings
    )
    x = torch.randn(2, 4, 5, 6, generator=rng, dtype=torch.float64)
    span = settings['dilation'] * (settings['kernel_size'] - 1) + 1
    rows, columns = ((s + 2 * settings['padding'] - span) // settings['stride'] + 1 for s in (5, 6))
    samples = settings['deform_groups'] * settings['kernel_size'] ** 2
    offset = torch.randn(2, 2 * samples, rows, columns, generator=rng, dtype=torch.float64) * 2
    mask = torch.rand(2, samples, rows, columns, generator=rng, dtype=torch.float64)
    kind = ModulatedDeformConv2d if modulated else DeformConv2d
    layer = kind(4, 6, **settings, bias=modulated).to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    inputs = [
        t.to(dtype).requires_grad_() for t in ((x, offset, mask) if modulated else (x, offset))
    ]
    return layer, inputs


def slow_layer(layer, inputs):
    x, offset, mask = inputs if len(inputs) == 3 else (*inputs, None)
    return slow_deform_conv(
        *(x, offset, mask, layer.weight, getattr(layer, 'bias', None)),
        *(layer.stride[0], layer.padding[0], layer.dilation[0], layer.groups, layer.deform_groups),
    )


@pytest.mark.parametrize('modulated', [False, True])
@pytest.mark.parametrize('settings', CONVS)
def test_deform_conv(settings, modulated, rng):
    layer, inputs = conv_case(settings, rng, modulated)
    got, wanted = layer(*inputs), slow_layer(layer, inputs)
    same([got], [wanted])
    leaves = [*inputs, *layer.parameters()]
    same(*(grads(y, leaves, torch.Generator().manual_seed(1)) for y in (got, wanted)))
    strided = [t.detach().repeat_interleave(2, 3)[..., ::2] for t in inputs]
    assert torch.equal(
        layer(strided[0].contiguous(memory_format=torch.channels_last), *strided[1:]), got
    )


@pytest.mark.parametrize('dtype', LOW)
@pytest.mark.parametrize('modulated', [False, True])
def test_deform_conv_under_autocast(modulated, dtype, rng):
    """Offsets of a convolution are of low precision, weights and input are of float32."""
    layer, inputs = conv_case({}, rng, modulated, torch.float32)
    inputs[1:] = [t.detach().to(dtype).requires_grad_() for t in inputs[1:]]
    with torch.autocast('cpu', dtype):
        got = layer(*inputs)
    assert got.dtype is dtype
    exact = copy.deepcopy(layer).double()
    with torch.no_grad():
        for parameter, low in zip(exact.parameters(), layer.parameters(), strict=True):
            parameter.copy_(low.to(dtype))
    wide = [t.detach().to(dtype).double().requires_grad_() for t in inputs]
    wanted = slow_layer(exact, wide)
    same([got], [wanted], rtol=2e-2, atol=0.05)
    parameters = [*layer.parameters()], [*exact.parameters()]
    factors = torch.ones_like(got)
    found = torch.autograd.grad(got, [*inputs, *parameters[0]], factors)
    assert [g.dtype for g in found] == [t.dtype for t in [*inputs, *parameters[0]]]
    expected = torch.autograd.grad(wanted, [*wide, *parameters[1]], factors.double())
    for one, other in zip(found, expected, strict=True):
        assert (one.double() - other).norm() < 0.02 * other.norm()


def test_modulated_deform_conv_without_bias(rng):
    layer, inputs = conv_case({}, rng, modulated=True)
    layer.bias = None
    got, wanted = layer(*inputs), slow_layer(layer, inputs)
    same([got], [wanted])
    leaves = [*inputs, layer.weight]
    same(*(grads(y, leaves, torch.Generator().manual_seed(1)) for y in (got, wanted)))


@pytest.mark.parametrize('wanted', ['input', 'weight', 'both', 'twice'])
def test_deform_conv_gradients_asked_for_one_by_one(monkeypatch, wanted, rng):
    """torchvision computes all gradients at once, and mmcv requests them in two calls."""
    calls, compute = [], stand_in._deform_conv_backward
    monkeypatch.setattr(
        stand_in, '_deform_conv_backward', lambda *args: calls.append(args) or compute(*args)
    )
    layer, (x, offset) = conv_case({}, rng, modulated=False)
    expected = torch.autograd.grad(slow_layer(layer, [x, offset]).sum(), [x, layer.weight])
    layer.weight.requires_grad_(wanted != 'input')
    x, offset = x.detach().requires_grad_(wanted != 'weight'), offset.detach()
    output = layer(x, offset).sum()
    leaves = [t for t in (x, layer.weight) if t.requires_grad]
    found = torch.autograd.grad(output, leaves, retain_graph=True)
    if wanted == 'twice':
        found = torch.autograd.grad(3 * output, leaves)
        expected = [3 * g for g in expected]
    pick = {'input': expected[:1], 'weight': expected[1:]}.get(wanted, expected)
    same(found, pick)
    assert len(calls) == (2 if wanted == 'twice' else 1)


def test_the_gradient_left_in_scratch_memory_is_used_once(rng):
    x, weight, offset, grad = (
        torch.randn(*shape, generator=rng)
        for shape in ((2, 2, 5, 5), (3, 2, 3, 3), (2, 18, 5, 5), (2, 3, 5, 5))
    )
    geometry, columns, ones = (3, 3, 1, 1, 1, 1, 1, 1, 1, 1), torch.zeros(0), torch.zeros(0)
    unused = torch.zeros_like(x), torch.zeros_like(offset), weight
    stand_in.deform_conv_backward_input(x, offset, grad, *unused, columns, *geometry, 2)
    sums = [torch.zeros_like(weight) for _ in range(3)]
    for total, factor, scale in zip(sums, (1, 1, 2), (1.0, 0.5, 1.0), strict=True):
        stand_in.deform_conv_backward_parameters(
            x, offset, factor * grad, total, columns, ones, *geometry, scale, 2
        )
    same(sums, [sums[0], sums[0] / 2, sums[0] * 2], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('modulated', [False, True])
def test_places_that_are_not_finite_are_outside(modulated, rng):
    """torchvision's kernels read at NaN, which ends the interpreter."""
    layer, inputs = conv_case({}, rng, modulated)
    far = inputs[1].detach().clone()
    far[0, [0, 3, 4], 0] = 1e4  # y of the first sample, x of the second, y of the third
    bad = far.clone()
    bad[0, [0, 3, 4], 0] = torch.tensor([[math.nan], [math.inf], [-math.inf]], dtype=far.dtype)
    outputs, gradients = [], []
    for offset in (far, bad):
        offset.requires_grad_()
        outputs.append(layer(inputs[0], offset, *inputs[2:]))
        leaves = [inputs[0], offset, layer.weight]
        gradients += [grads(outputs[-1], leaves, torch.Generator().manual_seed(1))]
    same(outputs[:1], outputs[1:])
    same(*gradients)
    assert outputs[1].isfinite().all()


def test_modulated_deform_conv_of_no_image():
    """mmcv refuses an empty batch in Python, other callers may not."""
    x, weight, bias = torch.zeros(0, 2, 5, 5), torch.ones(3, 2, 3, 3), torch.ones(3)
    offset, mask, none = torch.zeros(0, 18, 5, 5), torch.zeros(0, 9, 5, 5), torch.zeros(0)
    geometry = (3, 3, 1, 1, 1, 1, 1, 1, 1, 1, True)
    output = torch.zeros(0, 3, 5, 5)
    stand_in.modulated_deform_conv_forward(
        x, weight, bias, none, offset, mask, output, none, *geometry
    )
    gradients = [torch.zeros_like(t) for t in (x, weight, bias, offset, mask)]
    stand_in.modulated_deform_conv_backward(
        x, weight, bias, none, offset, mask, none, *gradients, output, *geometry
    )
    assert not any(g.any() for g in gradients)


@pytest.mark.parametrize('channels', [17, 20])
def test_offsets_that_do_not_fit_are_refused(channels):
    with pytest.raises((RuntimeError, ValueError), match='offset'):
        DeformConv2d(2, 3, 3, padding=1)(torch.zeros(1, 2, 5, 5), torch.zeros(1, channels, 5, 5))


# Against the compiled ops


class TestCompiled:
    pytestmark = compiled_mmcv

    @pytest.fixture
    def both(self, monkeypatch):
        """Call a function with the compiled ops and with the stand-in."""
        from mmcv import _ext

        def called(function):
            results = []
            for ops in (_ext, stand_in):
                for module in MODULES.values():
                    monkeypatch.setattr(module, 'ext_module', ops)
                results.append(function())
            return results

        return called

    @pytest.mark.parametrize('offset', [0, 1])
    @pytest.mark.parametrize('grid', [False, True])
    def test_nms_and_soft_nms_are_equal(self, both, grid, offset, rng):
        """On a grid boxes and scores come twice, boxes are empty, and IoUs equal thresholds."""
        for _ in range(20):
            boxes, scores = boxes_of(60, rng, torch.float32)
            if grid:
                boxes = torch.randint(0, 6, (60, 4), generator=rng).float()
                boxes[:, 2:] += boxes[:, :2]
                scores = torch.randint(0, 5, (60,), generator=rng) / 4
            for threshold in (0.3, 0.5, 0.6, 0.7):
                given = (boxes, scores, threshold)
                one, two = both(partial(nms, *given, offset=offset))
                assert torch.equal(one[1], two[1])
                for method in ('naive', 'linear', 'gaussian'):
                    settings = dict(min_score=0.05, method=method, offset=offset)
                    one, two = both(partial(soft_nms, *given, **settings))
                    assert torch.equal(one[1], two[1])
                    torch.testing.assert_close(one[0], two[0], rtol=2e-5, atol=0, equal_nan=True)

    @pytest.mark.parametrize('aligned', [False, True])
    @pytest.mark.parametrize('ratio', [0, 2])
    def test_roi_align_is_equal(self, both, aligned, ratio, rng):
        x = torch.randn(3, 4, 7, 9, generator=rng, requires_grad=True)

        def run():
            output = RoIAlign((3, 2), 0.5, ratio, 'avg', aligned)(x, ROIS.float())
            return output, *grads(output, [x], torch.Generator().manual_seed(1))

        assert all(map(torch.equal, *both(run)))

    @pytest.mark.parametrize('modulated', [False, True])
    @pytest.mark.parametrize('settings', CONVS)
    def test_deform_conv(self, both, settings, modulated, rng):
        layer, inputs = conv_case(settings, rng, modulated)

        def run():
            output = layer(*inputs)
            leaves = [*inputs, *layer.parameters()]
            return output, *grads(output, leaves, torch.Generator().manual_seed(1))

        same(*both(run))

    @pytest.mark.parametrize('dtype', LOW)
    def test_compiled_ops_in_low_precision(self, monkeypatch, dtype, rng):
        """What autocast leaves to the compiled ops is computed as in float32."""
        from mmcv import _ext

        for module in MODULES.values():
            monkeypatch.setattr(module, 'ext_module', _ext)
        boxes, scores = (t.to(dtype) for t in boxes_of(40, rng, torch.float32))
        x = torch.randn(3, 4, 7, 9, generator=rng).to(dtype)
        cases = {
            'nms': lambda low: nms(low(boxes), low(scores), 0.3),
            'soft_nms': lambda low: soft_nms(low(boxes), low(scores), 0.3),
            'max': lambda low: [RoIAlign((2, 2), 0.5, pool_mode='max')(low(x), ROIS.float())],
        }
        for modulated in (False, True):
            layer, inputs = conv_case({}, rng, modulated, dtype)
            cases[f'conv {modulated}'] = lambda low, m=layer, i=inputs: with_grads(m, i, low)
        cases['avg'] = lambda low: with_grads(
            lambda t: RoIAlign((2, 2), 0.5)(t, low(ROIS.to(dtype))),
            [x.clone().requires_grad_()],
            low,
        )
        if dtype is torch.bfloat16:
            with pytest.raises(RuntimeError):
                cases['nms'](lambda t: t)
        precision.keep_detection_ops_in_float32()
        proxies = [module.ext_module for module in MODULES.values()]
        precision.keep_detection_ops_in_float32()
        assert proxies == [module.ext_module for module in MODULES.values()]
        for name, run in cases.items():
            with torch.autocast('cpu', dtype):
                got = run(lambda t: t)
            wanted = run(lambda t: t.float())
            for one, other in zip(got, wanted, strict=True):
                if one.is_floating_point():
                    assert one.dtype is dtype, name
                if name.startswith('conv'):
                    assert (one.double() - other.double()).norm() <= 0.02 * other.norm(), name
                else:
                    assert torch.equal(one, other.to(one.dtype)), name


def with_grads(module, inputs, low):
    inputs = [low(t.detach()).requires_grad_() for t in inputs]
    if isinstance(module, torch.nn.Module):
        module = copy.deepcopy(module).to(inputs[0].dtype)
    output = module(*inputs)
    return output, *torch.autograd.grad(output.sum(), inputs)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
@pytest.mark.parametrize('dtype', [*LOW, torch.float32])
def test_a_gpu_computes_what_the_cpu_does(dtype, rng):
    boxes, scores = boxes_of(60, rng, torch.float32)
    x = torch.randn(3, 4, 7, 9, generator=rng).to(dtype)
    logits, target = torch.randn(6, 4, generator=rng).to(dtype), torch.tensor([0, 3, 4, 1, 4, 2])
    layers = [conv_case({}, rng, modulated, dtype) for modulated in (False, True)]

    def run(device):
        for offset in (0, 1):
            yield nms(boxes.to(device, dtype), scores.to(device), 0.3, offset)[1]
        yield soft_nms(boxes.to(device), scores.to(device))[1]
        yield sigmoid_focal_loss(logits.to(device), target.to(device), 2.0, 0.25, None, 'none')
        yield from with_grads(
            lambda t: RoIAlign((2, 2), 0.5)(t, ROIS.to(t.device).float()),
            [x],
            lambda t: t.to(device),
        )
        for layer, inputs in layers:
            yield from with_grads(layer.to(device), inputs, lambda t: t.to(device))

    with torch.backends.cudnn.flags(allow_tf32=False):
        for one, other in zip(run('cpu'), run('cuda'), strict=True):
            other = other.cpu()
            assert one.dtype is other.dtype
            assert (one.double() - other.double()).norm() <= 0.02 * one.double().norm()
