"""PosMLP: Zhicaiwww/PosMLP.

Files are those of timm's saver. They hold a table of offsets per block, more than a tenth of all
numbers, which is dropped: our kernels are computed.
"""

from mmwave.models import PosMLP

from .family import Family, Recognised, Release, Shapes
from .rules import Rule, drop, rename, transform
from .sizes import blocks_of, classes_of, ratio_of, shape_of, side_of

_NAME = 'PosMLP'
_STAGES = range(4)

_BLOCK = r'levels\.([0-3])\.encoder\.(\d+)\.'
_OURS = r'backbone.stages.\1.\2.'

RULES: tuple[Rule, ...] = (
    drop(r'.*\.rel_indices', 'tables of offsets, which are computed'),
    rename(r'patch_embed\.projs\.([0-2])\.(\w+)', r'backbone.stem.\1.conv.\2'),
    rename(r'patch_embed\.norms\.([0-2])\.(\w+)', r'backbone.stem.\1.norm.\2'),
    *(
        rename(
            rf'levels\.{stage}\.pool\.((?:conv|norm)\.\w+)',
            rf'backbone.downsamples.{stage - 1}.\1',
        )
        for stage in _STAGES[1:]
    ),
    rename(rf'{_BLOCK}norm\.(\w+)', rf'{_OURS}norm.\3'),
    rename(rf'{_BLOCK}proj_c_e\.(\w+)', rf'{_OURS}fc1.\3'),
    rename(rf'{_BLOCK}proj_c_s\.(\w+)', rf'{_OURS}fc2.\3'),
    rename(rf'{_BLOCK}gate_unit\.pos\.attention_(centers|spreads)', rf'{_OURS}gate.\3'),
    transform(rf'{_BLOCK}gate_unit\.pos\.token_proj_n_bias', rf'{_OURS}gate.bias', 'flatten'),
    rename(r'norm\.(\w+)', r'backbone.out_norms.3.\1'),
    rename(r'head\.(\w+)', r'head.fc.\1'),
)


def recognise(shapes: Shapes) -> Recognised:
    """Return the PosMLP that the published names and shapes describe."""
    stages = [_stage(shapes, i) for i in _STAGES]
    _, channels, *_ = shape_of(shapes, 'patch_embed.projs.0.weight', 4, _NAME)
    return Recognised(
        arch={key: tuple(stage[key] for stage in stages) for key in stages[0]},
        in_channels=channels,
        classes=classes_of(shapes),
    )


def _stage(shapes: Shapes, stage: int) -> dict[str, int]:
    """Return the sizes of a stage, read from its first block."""
    lead = f'levels.{stage}.encoder.'
    gate = f'{lead}0.gate_unit.pos'
    hidden, dim = shape_of(shapes, f'{lead}0.proj_c_e.weight', 2, _NAME)
    groups, _ = shape_of(shapes, f'{gate}.attention_centers', 2, _NAME)
    _, positions, _ = shape_of(shapes, f'{gate}.token_proj_n_bias', 3, _NAME)
    return {
        'depths': blocks_of(shapes, lead),
        'dims': dim,
        'mlp_ratios': ratio_of(hidden, dim, f'hidden channels of stage {stage}'),
        'windows': side_of(positions, f'windows of stage {stage}'),
        'groups': groups,
    }


FAMILY = Family(
    name='posmlp',
    backbone=PosMLP,
    rules=RULES,
    recognise=recognise,
    releases=(
        Release(
            framework='pytorch',
            origin='Zhicaiwww/PosMLP',
            licence='NOASSERTION',
            marks=(
                'patch_embed.projs.0.weight',
                'levels.0.encoder.0.proj_c_e.weight',
                'levels.0.encoder.0.gate_unit.pos.attention_centers',
            ),
        ),
    ),
)
