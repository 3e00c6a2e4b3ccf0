"""What the files of gMLP, ResMLP and MLP-Mixer share, on names made up here."""

import pytest

from mmwave.convert.isotropic import NORM, Stem, recognised, stem_of
from mmwave.errors import UserError

SHAPES = {
    'stem.proj.weight': (8, 3, 16, 16),
    **{f'blocks.{k}.norm.weight': (8,) for k in range(5)},
    'head.weight': (7, 8),
}


def found(shapes=SHAPES):
    return recognised(
        shapes,
        'gMLP',
        {'mlp_ratio': 2},
        stem=stem_of(shapes, 'gMLP'),
        positions=4,
        parts=[(r'norm\.(weight)', r'norm.\1')],
        norm=NORM,
    )


def test_the_stem():
    assert stem_of(SHAPES, 'gMLP') == Stem(dim=8, channels=3, patch_size=16)
    with pytest.raises(UserError, match='no gMLP: patches of 16 x 8 pixels are no squares'):
        stem_of({'stem.proj.weight': (8, 3, 16, 8)}, 'gMLP')


def test_blocks_are_numbered_through_four_stages():
    backbone = found()
    depths = backbone.arch['depths']
    assert (len(depths), sum(depths)) == (4, 5)
    assert backbone.arch == {'depths': depths, 'dim': 8, 'mlp_ratio': 2, 'patch_size': 16}
    assert (backbone.in_channels, backbone.classes, backbone.positions) == (3, 7, 4)
    names = [f'stages.{i}.{j}.norm' for i, depth in enumerate(depths) for j in range(depth)]
    targets = [rule.target for rule in backbone.rules]
    assert [t for t in targets if '.stages.' in t] == [rf'backbone.{name}.\1' for name in names]
    assert r'backbone.out_norms.3.\1' in targets


def test_a_file_without_blocks_is_refused():
    with pytest.raises(UserError, match='no gMLP: no tensor is called blocks'):
        found({'stem.proj.weight': (8, 3, 16, 16)})
