"""PosMLP: Zhicaiwww/PosMLP.

Files are those of timm's saver. They hold a table of offsets per block, more than a tenth of all
numbers, which our kernels compute.
"""

import math
from collections.abc import Mapping
from typing import Any

from mmwave.errors import UserError

from .family import Family, Release, Shapes, Target
from .rules import Rule, drop, rename, transform
from .shapes import Shape, batch_norm_shapes, custom_arch, layer_shapes

_STAGES = range(4)
_DEFAULTS: dict[str, Any] = {
    'mlp_ratios': (4, 4, 4, 2),
    'windows': (14, 14, 14, 7),
    'groups': (8, 16, 32, 64),
}


def _arch(dims: tuple[int, ...]) -> dict[str, Any]:
    """Sizes as a file tells them; ``windows`` are the sides of squares."""
    return {'depths': (2, 2, 18, 2), 'dims': dims, **_DEFAULTS}


ARCHS: Mapping[str, dict[str, Any]] = {
    't': _arch((96, 192, 384, 768)),
    's': _arch((128, 256, 512, 1024)),
    'b': _arch((192, 384, 768, 1536)),
}
"""The named archs by what a file's names and shapes tell."""

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


def recognise(shapes: Shapes) -> Target:
    """Tell the arch from the published names and shapes.

    Raises:
        ValueError: where a stage is missing, or its shapes are of no PosMLP that we build.
    """
    stages = [_stage(shapes, i) for i in _STAGES]
    arch: dict[str, Any] = {key: tuple(stage[key] for stage in stages) for key in stages[0]}
    named = next((name for name, known in ARCHS.items() if known == arch), None)
    backbone: dict[str, Any] = {
        'type': 'mmwave.PosMLP',
        'arch': named or custom_arch(arch, _DEFAULTS),
    }
    _, channels, *_ = _shape(shapes, 'patch_embed.projs.0.weight', 4)
    if channels != 3:
        backbone['in_channels'] = channels
    expected = _expected(arch, channels, shapes.get('head.weight'))
    return Target(named or 'custom', backbone, expected)


def _stage(shapes: Shapes, stage: int) -> dict[str, int]:
    """The sizes of a stage, by its first block."""
    lead = f'levels.{stage}.encoder.'
    gate = f'{lead}0.gate_unit.pos'
    hidden, dim = _shape(shapes, f'{lead}0.proj_c_e.weight', 2)
    groups, _ = _shape(shapes, f'{gate}.attention_centers', 2)
    _, positions, _ = _shape(shapes, f'{gate}.token_proj_n_bias', 3)
    if hidden % dim:
        raise UserError(f'stage {stage} widens {dim} channels to {hidden}, which is no multiple')
    side = math.isqrt(positions)
    if side * side != positions:
        raise UserError(
            f'stage {stage} has windows of {positions} positions, which are no square; their '
            'height and width cannot be told from a file'
        )
    return {
        'depths': len({name.split('.')[3] for name in shapes if name.startswith(lead)}),
        'dims': dim,
        'mlp_ratios': hidden // dim,
        'windows': side,
        'groups': groups,
    }


def _shape(shapes: Shapes, name: str, axes: int) -> tuple[int, ...]:
    shape = shapes.get(name, ())
    if len(shape) != axes or 0 in shape:
        raise UserError(f'no PosMLP of {len(_STAGES)} stages: {name} has no {axes} axes')
    return shape


def _expected(arch: Mapping[str, Any], channels: int, head: Shape | None) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    dims = arch['dims']
    widths = (channels, dims[0] // 2, dims[0], dims[0])
    for i, side in enumerate((3, 3, 1)):
        name = f'backbone.stem.{i}'
        found |= layer_shapes(f'{name}.conv', widths[i + 1], widths[i], side, side)
        found |= batch_norm_shapes(f'{name}.norm', widths[i + 1])
    for stage, dim in enumerate(dims):
        if stage:
            name = f'backbone.downsamples.{stage - 1}'
            found |= layer_shapes(f'{name}.conv', dim, 1, 3, 3)
            found |= layer_shapes(f'{name}.norm', dim)
        for block in range(arch['depths'][stage]):
            found |= _block(f'backbone.stages.{stage}.{block}', arch, stage)
    found |= layer_shapes('backbone.out_norms.3', dims[-1])
    return found | (layer_shapes('head.fc', head[0], dims[-1]) if head else {})


def _block(name: str, arch: Mapping[str, Any], stage: int) -> dict[str, Shape]:
    dim, groups, side = arch['dims'][stage], arch['groups'][stage], arch['windows'][stage]
    hidden = dim * arch['mlp_ratios'][stage]
    return {
        **layer_shapes(f'{name}.norm', dim),
        **layer_shapes(f'{name}.fc1', hidden, dim),
        **layer_shapes(f'{name}.fc2', dim, hidden // 2),
        f'{name}.gate.centers': (groups, 2),
        f'{name}.gate.spreads': (groups, 2, 2),
        f'{name}.gate.bias': (1, side * side),
    }


FAMILY = Family(
    name='posmlp',
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
