"""ResMLP: timm, facebookresearch/deit and BR-IDL/PaddleViT.

All three compute the same. Distilled and fine-tuned weights have the same names and shapes.
"""

from mmwave.models import ResMLP

from .family import Family, Inspected, Recognised, Release, Shapes
from .isotropic import AFFINE, PADDLEVIT_NAMES, TIMM, Part, recognised, stem_of
from .rules import rename
from .sizes import ratio_of, shape_of

_NAME = 'ResMLP'

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


def recognise(shapes: Shapes) -> Recognised:
    """Return the ResMLP that timm's names and shapes describe."""
    stem = stem_of(shapes, _NAME)
    hidden, _ = shape_of(shapes, 'blocks.0.mlp_channels.fc1.weight', 2, _NAME)
    positions, _ = shape_of(shapes, 'blocks.0.linear_tokens.weight', 2, _NAME)
    return recognised(
        shapes,
        _NAME,
        {'mlp_ratio': ratio_of(hidden, stem.dim, 'hidden channels of a ResMLP')},
        stem=stem,
        positions=positions,
        parts=_BLOCK,
        norm=AFFINE,
    )


FAMILY = Family(
    name='resmlp',
    backbone=ResMLP,
    recognise=recognise,
    inspected=Inspected(grid=True),
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
