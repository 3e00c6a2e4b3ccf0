"""The Vision Permutator against what the published code computes and against its formula."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from mmwave.checkpoint import read_checkpoint
from mmwave.convert import convert_file
from mmwave.models import ViP
from mmwave.models.backbones.vip import ARCHS, PermuteMLP, ViPArch
from mmwave.models.layers.token_grid import WindowTokens
from mmwave.models.layers.windows import mask_of
from mmwave.ops.windows import counts, cut
from tests import parity
from tests.contracts import build, images, relative_error
from tests.convert import published
from tests.families import TINY

GOLDENS = json.loads((Path(__file__).parents[2] / 'data/vip-goldens.json').read_text())
CLASSES = 16


@pytest.mark.parametrize(
    'case', [pytest.param(c, marks=pytest.mark.slow if 'm7' in c else ()) for c in GOLDENS]
)
def test_computes_what_the_release_computes(case, tmp_path):
    golden = GOLDENS[case]
    sizes = asdict(ARCHS[golden['arch']])
    sizes['grids'] = tuple(height for height, _ in sizes['grids'])
    shapes = published.vip(**sizes, classes=CLASSES)
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == golden['params']
    torch.save(parity.state_dict(shapes.items()), tmp_path / 'published.pth')
    convert_file(tmp_path / 'published.pth', tmp_path / 'ours.pth')
    state = read_checkpoint(tmp_path / 'ours.pth')['state_dict']

    parity.assert_golden(ViP(golden['arch']), state, golden, 1e-12)


def test_segments_of_columns_and_rows_are_mixed():
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


def test_arch_as_a_dict_and_its_checks():
    fields = TINY['ViP']
    assert build('ViP', fields).arch == ViPArch(**fields)
    assert ViPArch(**asdict(ARCHS['m7'])) == ARCHS['m7']
    assert ARCHS['m7'].strides == (7, 7, 14, 14)
    halved = dict(dims=(8, 16, 16, 16), patch_size=4, grids=(8, 4, 4, 4))
    assert [i.stride for i in build('ViP', fields | halved).stage_info] == [4, 8, 8, 8]
    for change, message in (
        (dict(depths=(1, 1)), r'depths=\(1, 1\) must be 4 positive numbers'),
        (dict(patch_size=0), 'patch_size=0 must be a positive whole number'),
        (dict(grids=8), r'grids=\(8,\) must be 4, each as large'),
        (dict(grids=(8, 4, 4)), r'grids=\(8, 4, 4\) must be 4, each as large'),
        (dict(grids=(8, 3, 3, 3)), r'grids=.* half of it'),
        (dict(dims=(8, 18, 18, 18)), r'dims=.* must be multiples of the sides of grids='),
        (dict(dims=(8, 16, 32, 32)), r'dims=.* may change only where the map is halved'),
    ):
        with pytest.raises(ValueError, match=message):
            build('ViP', fields | halved | change)
