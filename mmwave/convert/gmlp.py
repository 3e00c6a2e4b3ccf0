"""gMLP: timm and BR-IDL/PaddleViT.

timm's gate norm has an epsilon of 1e-5, PaddleViT's 1e-6, so the converter writes
``gate_norm_eps=1e-6`` for PaddleViT's weights. All other norms of both have 1e-6.
"""

from mmwave.errors import UserError
from mmwave.models import GMLP

from .family import Family, Inspected, NormEps, Recognised, Release, Shapes
from .isotropic import NORM, PADDLEVIT_NAMES, TIMM, Part, recognised, stem_of
from .sizes import ratio_of, shape_of

_NAME = 'gMLP'

_BLOCK: tuple[Part, ...] = (
    (r'(norm\.\w+)', r'\1'),
    (r'mlp_channels\.((?:fc[12]|gate\.(?:norm|proj))\.\w+)', r'\1'),
)


def recognise(shapes: Shapes) -> Recognised:
    """Return the gMLP that timm's names and shapes describe."""
    stem = stem_of(shapes, _NAME)
    lead = 'blocks.0.mlp_channels'
    hidden, _ = shape_of(shapes, f'{lead}.fc1.weight', 2, _NAME)
    positions, _ = shape_of(shapes, f'{lead}.gate.proj.weight', 2, _NAME)
    if hidden % 2:
        raise UserError(f'no gMLP: {hidden} hidden channels have no halves')
    return recognised(
        shapes,
        _NAME,
        {'mlp_ratio': ratio_of(hidden, stem.dim, 'hidden channels of a gMLP')},
        stem=stem,
        positions=positions,
        parts=_BLOCK,
        norm=NORM,
    )


FAMILY = Family(
    name='gmlp',
    backbone=GMLP,
    recognise=recognise,
    inspected=Inspected(
        norm_eps=(
            NormEps(r'.*\.gate\.norm', 1e-5, setting='gate_norm_eps'),
            NormEps(r'.*', 1e-6),
        ),
        grid=True,
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
