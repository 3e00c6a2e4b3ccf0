"""ResMLP: timm, facebookresearch/deit and BR-IDL/PaddleViT.

The three compute alike. Distilled and fine-tuned weights have the names and shapes of the others.
"""

from collections.abc import Mapping
from typing import Any

from .family import Family, Grid, Inspected, Release, Shapes, Target
from .isotropic import (
    AFFINE,
    PADDLEVIT_NAMES,
    TIMM,
    Part,
    depths_of,
    grid_of,
    matrix_of,
    positions_of,
    ratio_of,
    stages_of,
    stem_of,
    target_of,
)
from .rules import rename
from .shapes import Shape, layer_shapes

DEFAULTS: dict[str, Any] = {'mlp_ratio': 4, 'patch_size': 16, 'grid': 14}


def _arch(depth: int, dim: int = 384, **sizes: int) -> dict[str, Any]:
    return {'depths': stages_of(depth), 'dim': dim, **DEFAULTS, **sizes}


ARCHS: Mapping[str, dict[str, Any]] = {
    's12': _arch(12),
    's24': _arch(24),
    's36': _arch(36),
    'b24': _arch(24, dim=768, patch_size=8, grid=28),
}
"""The named archs by what a file's names and shapes tell."""

_BLOCK: tuple[Part, ...] = (
    *((rf'norm([12])\.{leaf}', rf'norm\1.{ours}', name) for leaf, ours, name in AFFINE),
    (r'linear_tokens\.(\w+)', r'tokens.\1'),
    (r'mlp_channels\.(fc[12]\.\w+)', r'mlp.\1'),
    (r'ls([12])', r'scale\1'),
)

_DEIT_NAMES = (
    rename(r'patch_embed\.(.+)', r'stem.\1'),
    rename(r'blocks\.(\d+)\.attn\.(\w+)', r'blocks.\1.linear_tokens.\2'),
    rename(r'blocks\.(\d+)\.mlp\.(.+)', r'blocks.\1.mlp_channels.\2'),
    rename(r'blocks\.(\d+)\.gamma_([12])', r'blocks.\1.ls\2'),
    rename(r'(.*)', r'\1'),
)


def recognise(shapes: Shapes, grid: Grid | None = None) -> Target:
    """Tell the arch from timm's names and shapes; ``grid``: the trained one, where it is known.

    Raises:
        ValueError: where the shapes are of no ResMLP that we build.
    """
    stem = stem_of(shapes, 'ResMLP')
    hidden, _ = matrix_of(shapes, 'blocks.0.mlp_channels.fc1.weight', 'ResMLP')
    positions, _ = matrix_of(shapes, 'blocks.0.linear_tokens.weight', 'ResMLP')
    arch = {
        'depths': depths_of(shapes, 'ResMLP'),
        'dim': stem.dim,
        'mlp_ratio': ratio_of(hidden, stem.dim),
        'patch_size': stem.patch_size,
        'grid': grid_of(positions, grid),
    }
    return target_of(
        'mmwave.ResMLP',
        ARCHS,
        arch,
        defaults=DEFAULTS,
        stem=stem,
        block=_block(arch),
        parts=_BLOCK,
        norm=AFFINE,
        head=shapes.get('head.weight'),
    )


def _block(arch: Mapping[str, Any]) -> dict[str, Shape]:
    dim, positions = arch['dim'], positions_of(arch)
    hidden = dim * arch['mlp_ratio']
    return {
        **layer_shapes('norm1', dim),
        **layer_shapes('tokens', positions, positions),
        'scale1': (dim,),
        **layer_shapes('norm2', dim),
        **layer_shapes('mlp.fc1', hidden, dim),
        **layer_shapes('mlp.fc2', dim, hidden),
        'scale2': (dim,),
    }


FAMILY = Family(
    name='resmlp',
    recognise=recognise,
    inspected=Inspected(recognise=recognise),
    releases=(
        Release(
            framework='pytorch',
            origin=TIMM,
            licence='Apache-2.0',
            marks=('stem.proj.weight', 'blocks.0.linear_tokens.weight'),
        ),
        Release(
            framework='pytorch',
            origin='facebookresearch/deit resmlp_models.py',
            licence='Apache-2.0',
            marks=('patch_embed.proj.weight', 'blocks.0.attn.weight', 'blocks.0.norm1.alpha'),
            names=(_DEIT_NAMES,),
        ),
        Release(
            framework='paddle',
            origin='BR-IDL/PaddleViT image_classification/ResMLP',
            licence='Apache-2.0',
            marks=('patch_embed.patch_embed.weight', 'mixer_layers.0.linear_tokens.weight'),
            names=(PADDLEVIT_NAMES,),
        ),
    ),
)
