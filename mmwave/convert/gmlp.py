"""gMLP: timm and BR-IDL/PaddleViT.

timm's gate norm has an epsilon of 1e-5, PaddleViT's 1e-6, so the config of the backbone that
PaddleViT's weights are for says so. All other norms of both have 1e-6.
"""

from collections.abc import Mapping
from typing import Any

from mmwave.errors import UserError

from .family import Family, Grid, Inspected, NormEps, Release, Shapes, Target
from .isotropic import (
    NORM,
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
from .shapes import Shape, layer_shapes

DEFAULTS: dict[str, Any] = {'mlp_ratio': 6, 'patch_size': 16, 'grid': 14}

ARCHS: Mapping[str, dict[str, Any]] = {
    name: {'depths': stages_of(30), 'dim': dim, **DEFAULTS}
    for name, dim in (('ti16', 128), ('s16', 256), ('b16', 512))
}
"""The named archs by what a file's names and shapes tell."""

_BLOCK: tuple[Part, ...] = (
    (r'(norm\.\w+)', r'\1'),
    (r'mlp_channels\.((?:fc[12]|gate\.(?:norm|proj))\.\w+)', r'\1'),
)


def recognise(shapes: Shapes, grid: Grid | None = None) -> Target:
    """Tell the arch from timm's names and shapes; ``grid``: the trained one, where it is known.

    Raises:
        ValueError: where the shapes are of no gMLP that we build.
    """
    stem = stem_of(shapes, 'gMLP')
    lead = 'blocks.0.mlp_channels'
    hidden, _ = matrix_of(shapes, f'{lead}.fc1.weight', 'gMLP')
    positions, _ = matrix_of(shapes, f'{lead}.gate.proj.weight', 'gMLP')
    if hidden % 2:
        raise UserError(f'no gMLP: {hidden} hidden channels have no halves')
    arch = {
        'depths': depths_of(shapes, 'gMLP'),
        'dim': stem.dim,
        'mlp_ratio': ratio_of(hidden, stem.dim),
        'patch_size': stem.patch_size,
        'grid': grid_of(positions, grid),
    }
    return target_of(
        'mmwave.GMLP',
        ARCHS,
        arch,
        defaults=DEFAULTS,
        stem=stem,
        block=_block(arch),
        parts=_BLOCK,
        norm=NORM,
        head=shapes.get('head.weight'),
    )


def _block(arch: Mapping[str, Any]) -> dict[str, Shape]:
    dim, positions = arch['dim'], positions_of(arch)
    hidden = dim * arch['mlp_ratio']
    return {
        **layer_shapes('norm', dim),
        **layer_shapes('fc1', hidden, dim),
        **layer_shapes('gate.norm', hidden // 2),
        **layer_shapes('gate.proj', positions, positions),
        **layer_shapes('fc2', dim, hidden // 2),
    }


FAMILY = Family(
    name='gmlp',
    recognise=recognise,
    inspected=Inspected(
        norm_eps=(
            NormEps(r'.*\.gate\.norm', 1e-5, setting='gate_norm_eps'),
            NormEps(r'.*', 1e-6),
        ),
        recognise=recognise,
    ),
    releases=(
        Release(
            framework='pytorch',
            origin=TIMM,
            licence='Apache-2.0',
            marks=('stem.proj.weight', 'blocks.0.mlp_channels.gate.proj.weight'),
        ),
        Release(
            framework='paddle',
            origin='BR-IDL/PaddleViT image_classification/gMLP',
            licence='Apache-2.0',
            marks=(
                'patch_embed.patch_embed.weight',
                'mixer_layers.0.mlp_channels.gate.proj.weight',
            ),
            names=(PADDLEVIT_NAMES,),
            settings={'gate_norm_eps': 1e-6},
        ),
    ),
)
