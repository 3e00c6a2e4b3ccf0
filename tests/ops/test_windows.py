"""Cutting maps into windows and joining them again."""

import itertools

import pytest
import torch

from mmwave.ops.windows import (
    by_parts,
    counts,
    cut,
    cuts,
    join,
    pad_to_multiples,
    resize,
    spans,
)
from tests.contracts import images
from tests.graphs import check_op, recorded

SIZES = [(6, 8), (3, 4), (5, 9), (1, 1), (7, 2)]


@pytest.mark.parametrize('size', SIZES)
def test_windows_are_row_major_and_join_to_the_map(size):
    x, (h, w) = images(2, 3, *size), (3, 4)
    windows = cut(x, (h, w))
    rows, columns = -(-size[0] // h), -(-size[1] // w)
    assert windows.shape == (2 * rows * columns, 3, h, w)
    for n in range(2):
        for i in range(rows):
            for j in range(columns):
                window = windows[(n * rows + i) * columns + j]
                part = x[n, :, i * h : (i + 1) * h, j * w : (j + 1) * w]
                assert torch.equal(window[:, : part.shape[1], : part.shape[2]], part)
                assert window.sum() == pytest.approx(part.sum().item(), abs=1e-5)
    assert torch.equal(join(windows, size), x)


AROUND = {
    'cut': lambda norm, x: cut(norm(x), (1, 1)).unflatten(0, (len(x), -1)),
    'join': lambda norm, x: norm(join(cut(x, (1, 1)).contiguous(), (3, 2))).sin(),
}


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('around', AROUND)
def test_gradients_of_a_batch_norm_around_windows_of_one_position(around, training):
    """Torch's batch norm reads the stride of a batch of one, and that of its gradient."""
    norm, found = torch.nn.BatchNorm2d(8).double().train(training), []
    one = images(1, 8, 3, 2).double()
    for x in (one, one.repeat(2, 1, 1, 1)):
        x.requires_grad_()
        out = AROUND[around](norm, x)
        weights = images(*out.shape[1:]).double()
        (gradient,) = torch.autograd.grad((out * weights).sum(), x)
        found.append(gradient[:1])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-12)


def test_sizes_that_fit_are_not_copied():
    x = images(1, 2, 3, 4)
    assert resize(x, (3, 4)) is x
    assert cut(x, (3, 4)).data_ptr() == x.data_ptr()


def both(x):
    """Return windows of 3 x 4, and the map joined from changed ones."""
    windows = cut(x, (3, 4))
    return windows, join(windows * windows.detach().cos(), (x.shape[2], x.shape[3]))


@pytest.mark.parametrize('size', [(6, 8), (5, 9), (7, 2)])
def test_custom_ops_in_graphs_with_dynamic_sizes(size):
    x = images(2, 3, *size).double().requires_grad_()
    wanted = both(x)
    got, nodes = recorded(both, x.detach().requires_grad_(), open_axes=(2, 3))
    assert {'mmwave.cut', 'mmwave.join'} <= set(nodes)
    assert not any('pad' in node or 'reshape' in node for node in nodes)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))
    _, nodes = recorded(both, x.detach())
    assert not any('mmwave' in node for node in nodes)


@pytest.mark.parametrize('layout', [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize('size', SIZES)
def test_custom_ops_are_registered_correctly(size, layout):
    x = images(2, 3, *size).contiguous(memory_format=layout).requires_grad_()
    check_op(torch.ops.mmwave.cut.default, x, 3, 4)
    windows = cut(x, (3, 4)).detach().contiguous(memory_format=layout).requires_grad_()
    check_op(torch.ops.mmwave.join.default, windows, *size)


@pytest.mark.parametrize('size', SIZES)
def test_gradients_of_the_custom_ops(size):
    x = images(2, 3, *size).double().requires_grad_()
    found = []
    for cutting, joining in ((cut, join), (torch.ops.mmwave.cut, torch.ops.mmwave.join)):
        windows = cutting(x, (3, 4)) if cutting is cut else cutting(x, 3, 4)
        changed = windows * images(*windows.shape, seed=1)
        y = joining(changed, size) if joining is join else joining(changed, *size)
        found.append(torch.autograd.grad((y * images(*y.shape, seed=2)).sum(), x)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize(
    ('size', 'wanted'), [((6, 8), (2, 2)), ((7, 9), (3, 3)), ((1, 1), (1, 1)), ((3, 5), (1, 2))]
)
def test_counts(size, wanted):
    assert counts(size, (3, 4)) == wanted


def test_windows_that_fill_an_axis_are_as_near_to_the_trained_one_as_can_be():
    for step, side in itertools.product((1, 2, 7, 14), range(1, 200)):
        found = spans(side, step)
        count = sum(n for n, _ in found)
        assert sum(n * s for n, s in found) == side
        nearest = min(abs(side / n - step) for n in range(1, side + 1))
        assert abs(side / count - step) == nearest
        sides = [s for _, s in found]
        assert len(sides) <= 2
        assert sides == sorted(sides, reverse=True)
        assert max(sides) - min(sides) <= 1
        assert all(n > 0 and s > 0 for n, s in found)


@pytest.mark.parametrize(
    ('side', 'wanted'), [(8, [(2, 4)]), (9, [(2, 4), (1, 1)]), (3, [(1, 3)]), (4, [(1, 4)])]
)
def test_windows_of_the_trained_size_and_what_is_left(side, wanted):
    assert cuts(side, 4) == wanted


@pytest.mark.parametrize('sides', [spans, cuts])
@pytest.mark.parametrize('size', [(6, 8), (7, 9), (2, 5)])
def test_parts_of_a_map_have_windows_of_one_size(size, sides):
    x, seen = images(2, *size, 3), []

    def mix(part, window):
        assert not any(n % s for n, s in zip(part.shape[1:3], window, strict=True))
        seen.append(part.shape[1] * part.shape[2])
        return part + 1

    rows, columns = sides(size[0], 3), sides(size[1], 4)
    assert torch.equal(by_parts(x, rows, columns, mix), x + 1)
    assert len(seen) == len(rows) * len(columns)
    assert sum(seen) == size[0] * size[1]


@pytest.mark.parametrize(('size', 'padded'), [((5, 8), (8, 8)), ((4, 1), (4, 4)), ((8, 4), (8, 4))])
def test_padding_to_multiples(size, padded):
    x = images(2, 3, *size)
    got = pad_to_multiples(x, 4)
    assert got.shape[2:] == padded
    assert torch.equal(got[:, :, : size[0], : size[1]], x)
    assert got.abs().sum() == pytest.approx(x.abs().sum())
