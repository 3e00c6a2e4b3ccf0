import pytest
import torch
import torch.nn.functional as F

from mmwave.models.layers import DropPath, TokenLinear
from mmwave.models.layers.token_grid import ResizedTokens, WindowTokens, resampling
from mmwave.models.layers.windows import mask_of
from mmwave.ops.windows import counts, cut
from tests.contracts import images, relative_error

WINDOW = (3, 4)
SIZES = [(3, 4), (2, 3), (7, 9), (6, 8), (1, 1), (5, 4)]


def windows(size, x):
    """The window grid of a map of ``size``, and the map (N, H, W, C) as the grid's own form."""
    shape = counts(size, WINDOW)
    mask = mask_of(size, WINDOW, shape, like=x).permute(0, 2, 3, 1)
    own = cut(x.permute(0, 3, 1, 2), WINDOW, shape).permute(0, 2, 3, 1)
    return WindowTokens(size, WINDOW, shape, mask), own


@pytest.mark.parametrize(
    ('source', 'target'), [(14, 14), (14, 20), (14, 9), (1, 5), (5, 1), (3, 7)]
)
def test_resampling_is_torch_s_antialiased_interpolation(source, target):
    x = images(2, 3, source, 4).double()
    matrix = resampling(source, target, like=x)
    wanted = F.interpolate(x, (target, 4), mode='bilinear', antialias=True)
    assert relative_error(matrix @ x, wanted) < 1e-14
    assert (matrix.sum(dim=1) - 1).abs().max() < 1e-14
    assert (matrix >= 0).all()
    if source == target:
        assert torch.equal(matrix, torch.eye(source).double())


def test_resampling_in_half_precision_is_rounded_once():
    x = images(1, 1, 14, 1)
    exact = resampling(14, 9, like=x)
    assert torch.equal(resampling(14, 9, like=x.bfloat16()), exact.bfloat16())


@pytest.mark.parametrize('size', SIZES)
def test_a_resized_layer_has_the_interpolated_matrix(size):
    """U W D, built in full."""
    layer = TokenLinear(12, 12).double()
    x = images(2, *size, 5).double()
    grid = ResizedTokens.of(size, WINDOW, like=x)
    down, up = (
        torch.kron(resampling(a[0], b[0], like=x), resampling(a[1], b[1], like=x))
        for a, b in ((size, WINDOW), (WINDOW, size))
    )
    tokens = x.flatten(1, 2)
    matrix, bias = up @ layer.weight @ down, up @ layer.bias
    wanted = torch.einsum('qp,npc->nqc', matrix, tokens) + bias[:, None]
    got = grid.mixed(x, layer).flatten(1, 2)
    assert relative_error(got, wanted) < 1e-13
    if size == WINDOW:
        assert torch.equal(got, layer(tokens))


@pytest.mark.parametrize('size', SIZES)
def test_resizing_preserves_what_the_layer_does_to_constants(size):
    layer = TokenLinear(12, 12, bias=False).double()
    with torch.no_grad():
        layer.weight /= layer.weight.sum(dim=1, keepdim=True)
    x = torch.full((1, *size, 2), 3.0).double()
    assert relative_error(ResizedTokens.of(size, WINDOW, like=x).mixed(x, layer), x) < 1e-13


@pytest.mark.parametrize('size', SIZES)
def test_windows_mix_the_positions_that_are_there(size):
    layer = TokenLinear(12, 12).double()
    x = images(2, *size, 5).double()
    grid, own = windows(size, x)
    got = grid.to_map(grid.mixed(own, layer)).permute(0, 2, 3, 1)
    matrix, bias = layer.weight.view(*WINDOW, *WINDOW), layer.bias.view(*WINDOW)
    for top in range(0, size[0], WINDOW[0]):
        for left in range(0, size[1], WINDOW[1]):
            part = x[:, top : top + WINDOW[0], left : left + WINDOW[1]]
            h, w = part.shape[1:3]
            wanted = torch.einsum('abij,nijc->nabc', matrix[:h, :w, :h, :w], part)
            wanted += bias[:h, :w, None]
            there = got[:, top : top + h, left : left + w]
            assert relative_error(there, wanted) < 1e-13


@pytest.mark.parametrize('size', SIZES)
def test_means_and_factors_are_of_whole_images(size):
    x = images(2, *size, 5).double()
    factors = images(2, 5, seed=3).double()
    for grid, own in (windows(size, x), (ResizedTokens.of(size, WINDOW, like=x), x)):
        assert relative_error(grid.mean(own), x.mean(dim=(1, 2))) < 1e-13
        spread = grid.to_map(own * grid.spread(factors))
        assert torch.equal(spread.permute(0, 2, 3, 1), x * factors[:, None, None])


def test_images_are_dropped_whole():
    torch.manual_seed(0)
    drop_path = DropPath(0.5).train()
    x = torch.ones(16, 7, 9, 2)
    for grid, own in (windows((7, 9), x), (ResizedTokens.of((7, 9), WINDOW, like=x), x)):
        kept = grid.to_map(grid.dropped(own, drop_path)).flatten(1)
        assert set(kept[:, 0].tolist()) == {0.0, 2.0}
        assert torch.equal(kept, kept[:, :1].expand_as(kept))
        assert torch.equal(grid.dropped(own, drop_path.eval()), own)
        assert torch.equal(grid.dropped(own, None), own)
        drop_path.train()


@pytest.mark.parametrize('size', [(7, 9), (6, 8), (1, 1)])
def test_even_fills_up_with_zeros(size):
    x = images(1, *size, 2)
    even = [side + side % 2 for side in size]
    got = ResizedTokens.of(size, WINDOW, like=x).pad_even(x)
    assert list(got.shape[1:3]) == even
    assert torch.equal(got[:, : size[0], : size[1]], x)
    assert got.sum() == pytest.approx(x.sum().item(), rel=1e-5)
