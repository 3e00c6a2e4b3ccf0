"""Hire-MLP: ggjy/Hire-Wave-MLP.pytorch, its segmentors, and mindspore-ai/models.

All have the same names of parts. By how much a block rolls its map is in no tensor: of a file with
the sizes of a named arch it is what the arch states, of any other the release's defaults are
assumed. MindSpore's code rolls the other way, and its GELU is the tanh approximation, so the
converter writes ``shift_direction`` and ``act_cfg`` for its weights.
"""

from collections.abc import Iterator

from mmwave.models import HireMLP

from .family import Family, Recognised, Release, Shapes
from .rules import DENSE_NAMES, MINDSPORE_FILLS, MINDSPORE_NAMES, Rule, rename
from .sizes import blocks_of, classes_of, ratio_of, shape_of

_NAME = 'Hire-MLP'
_STAGES = range(4)

_BLOCK = (
    (r'(norm[12]\.\w+)', r'\2'),
    (r'attn\.mlp_h([12]\.\w+)', r'mixer.rows.fc\2'),
    (r'attn\.mlp_h1_norm\.(\w+)', r'mixer.rows.norm.\2'),
    (r'attn\.mlp_w([12]\.\w+)', r'mixer.columns.fc\2'),
    (r'attn\.mlp_w1_norm\.(\w+)', r'mixer.columns.norm.\2'),
    (r'attn\.mlp_c\.(\w+)', r'mixer.channel.\2'),
    (r'attn\.((?:reweight\.fc[12]|proj)\.\w+)', r'mixer.\2'),
    (r'(mlp\.fc[12]\.\w+)', r'\2'),
)


def _stage_rules(stage: int) -> Iterator[Rule]:
    """Yield the rules of a stage, of its output norm in dense files and of its downsample."""
    here = 2 * stage
    for published, ours in _BLOCK:
        yield rename(rf'network\.{here}\.(\d+)\.{published}', rf'backbone.stages.{stage}.\1.{ours}')
    yield rename(rf'norm{here}\.(\w+)', rf'backbone.out_norms.{stage}.\1')
    yield rename(rf'network\.{here + 1}\.proj\.(\w+)', rf'backbone.downsamples.{stage}.conv.\1')
    yield rename(rf'network\.{here + 1}\.norm\.(\w+)', rf'backbone.downsamples.{stage}.norm.\1')


RULES = (
    rename(r'patch_embed\.proj\.(\w+)', r'backbone.stem.conv.\1'),
    rename(r'patch_embed\.norm\.(\w+)', r'backbone.stem.norm.\1'),
    *(rule for stage in _STAGES for rule in _stage_rules(stage)),
    rename(r'norm\.(\w+)', r'backbone.out_norms.3.\1'),
    rename(r'head\.(\w+)', r'head.fc.\1'),
)


def recognise(shapes: Shapes) -> Recognised:
    """Return the Hire-MLP that the published (torch) names and shapes describe."""
    stages = [_stage(shapes, i) for i in _STAGES]
    _, channels, *_ = shape_of(shapes, 'patch_embed.proj.weight', 4, _NAME)
    levels = (i for i in _STAGES if f'norm{2 * i}.weight' in shapes)
    return Recognised(
        arch={key: tuple(stage[key] for stage in stages) for key in stages[0]},
        in_channels=channels,
        classes=classes_of(shapes),
        out_indices=tuple(levels) or (_STAGES[-1],),
    )


def _stage(shapes: Shapes, stage: int) -> dict[str, int]:
    """Return the sizes of a stage, read from its first block."""
    lead = f'network.{2 * stage}.'
    hidden, dim, *_ = shape_of(shapes, f'{lead}0.mlp.fc1.weight', 4, _NAME)
    _, regions, *_ = shape_of(shapes, f'{lead}0.attn.mlp_h1.weight', 4, _NAME)
    return {
        'depths': blocks_of(shapes, lead),
        'dims': dim,
        'mlp_ratios': ratio_of(hidden, dim, f'hidden channels of stage {stage}'),
        'region_sizes': ratio_of(regions, dim, f'inputs of mlp_h1 of stage {stage}'),
    }


_MARKS = (
    'patch_embed.proj.weight',
    'network.0.0.attn.mlp_h1.weight',
    'network.0.0.attn.mlp_h1_norm.{scale}',
    'network.0.0.attn.mlp_w2.weight',
)


def _marks(lead: str = '', scale: str = 'weight') -> tuple[str, ...]:
    return tuple(lead + mark.format(scale=scale) for mark in _MARKS)


# The README of the release says MIT, without a licence file, and its train.py CC-BY-NC.
_UNCLEAR = 'LicenseRef-MIT-in-README-CC-BY-NC-in-code'

FAMILY = Family(
    name='hiremlp',
    backbone=HireMLP,
    rules=RULES,
    recognise=recognise,
    releases=(
        Release(
            framework='pytorch',
            origin='ggjy/Hire-Wave-MLP.pytorch mlp_based/hire_mlp.py',
            licence=_UNCLEAR,
            marks=_marks(),
        ),
        Release(
            framework='pytorch',
            origin='ggjy/Hire-Wave-MLP.pytorch mmseg-v0.11',
            licence=_UNCLEAR,
            marks=_marks(lead='backbone.'),
            names=(DENSE_NAMES,),
        ),
        Release(
            framework='mindspore',
            origin='mindspore-ai/models research/cv/HireMLP',
            licence='Apache-2.0',
            marks=_marks(scale='gamma'),
            names=(MINDSPORE_NAMES,),
            fills=MINDSPORE_FILLS,
            settings={
                'act_cfg': {'type': 'GELU', 'approximate': 'tanh'},
                'shift_direction': 'backward',
            },
        ),
    ),
)
