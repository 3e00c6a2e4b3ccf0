"""MLP-Mixer: google-research/vision_transformer, timm, mmpretrain and BR-IDL/PaddleViT.

The GELU of Google's code is flax's, the tanh approximation, so the config of the backbone that its
weights are for says so. timm's ports of the same weights use the exact one.

mmpretrain's norms have an epsilon of 1e-5, all others' 1e-6, so the config of the backbone that its
weights are for says so.

timm's gMixer has the names of MLP-Mixer: the halves of its hidden channels gate each other. Its
shapes tell it, and it is refused.
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
    stages_of,
    stem_of,
    target_of,
)
from .rules import rename, transform
from .shapes import Shape, layer_shapes

DEFAULTS: dict[str, Any] = {'patch_size': 16, 'grid': 14}


def _arch(depth: int, dim: int) -> dict[str, Any]:
    sizes = {'token_mlp_dim': dim // 2, 'channel_mlp_dim': 4 * dim}
    return {'depths': stages_of(depth), 'dim': dim, **sizes, **DEFAULTS}


ARCHS: Mapping[str, dict[str, Any]] = {
    's16': _arch(8, 512),
    'b16': _arch(12, 768),
    'l16': _arch(24, 1024),
}
"""The named archs by what a file's names and shapes tell."""

_BLOCK: tuple[Part, ...] = (
    (r'(norm[12]\.\w+)', r'\1'),
    (r'mlp_tokens\.(fc[12]\.\w+)', r'token_mlp.\1'),
    (r'mlp_channels\.(fc[12]\.\w+)', r'channel_mlp.\1'),
)

# flax numbers the layers of a kind from 0, and keeps kernels as (in, out) and (kh, kw, in, out).
_FLAX_PARTS = (
    *((rf'LayerNorm_{k}', f'norm{k + 1}') for k in (0, 1)),
    *(
        (rf'{mixing}_mixing/Dense_{k}', f'mlp_{mixing}s.fc{k + 1}')
        for mixing in ('token', 'channel')
        for k in (0, 1)
    ),
)
_FLAX_NAMES = (
    transform('stem/kernel', 'stem.proj.weight', 'hwio'),
    rename('stem/bias', 'stem.proj.bias'),
    *(
        make(rf'MixerBlock_(\d+)/{theirs}/{leaf}', rf'blocks.\1.{ours}.{timms}', *name)
        for theirs, ours in _FLAX_PARTS
        for make, leaf, timms, *name in (
            (transform, 'kernel', 'weight', 'transpose'),
            (rename, 'scale', 'weight'),
            (rename, 'bias', 'bias'),
        )
    ),
    rename('pre_head_layer_norm/scale', 'norm.weight'),
    rename('pre_head_layer_norm/bias', 'norm.bias'),
    transform('head/kernel', 'head.weight', 'transpose'),
    rename('head/bias', 'head.bias'),
    rename(r'(.*)', r'\1'),
)

_MMPRETRAIN_NAMES = (
    rename(r'backbone\.patch_embed\.projection\.(\w+)', r'stem.proj.\1'),
    rename(r'backbone\.layers\.(\d+)\.ln([12])\.(\w+)', r'blocks.\1.norm\2.\3'),
    *(
        rename(
            rf'backbone\.layers\.(\d+)\.(token|channel)_mix\.layers\.{layer}\.(\w+)',
            rf'blocks.\1.mlp_\2s.{fc}.\3',
        )
        for layer, fc in ((r'0\.0', 'fc1'), ('1', 'fc2'))
    ),
    rename(r'backbone\.ln1\.(\w+)', r'norm.\1'),
    rename(r'head\.fc\.(\w+)', r'head.\1'),
    rename(r'(.*)', r'\1'),
)


def recognise(shapes: Shapes, grid: Grid | None = None) -> Target:
    """Tell the arch from timm's names and shapes; ``grid``: the trained one, where it is known.

    Raises:
        ValueError: where the shapes are of no MLP-Mixer that we build.
    """
    stem = stem_of(shapes, 'MLP-Mixer')
    sizes = {}
    for part in ('token', 'channel'):
        lead = f'blocks.0.mlp_{part}s'
        hidden, positions = matrix_of(shapes, f'{lead}.fc1.weight', 'MLP-Mixer')
        if part == 'token':
            sizes['grid'] = positions
        _, taken = matrix_of(shapes, f'{lead}.fc2.weight', 'MLP-Mixer')
        if hidden == 2 * taken:
            raise UserError(
                f'of no known family: {lead}.fc2 takes half of the {hidden} channels of fc1, so '
                'the other half gates it, as in the gMixer of timm; an MLP-Mixer has no gates'
            )
        sizes[f'{part}_mlp_dim'] = hidden
    arch = {
        'depths': depths_of(shapes, 'MLP-Mixer'),
        'dim': stem.dim,
        'token_mlp_dim': sizes['token_mlp_dim'],
        'channel_mlp_dim': sizes['channel_mlp_dim'],
        'patch_size': stem.patch_size,
        'grid': grid_of(sizes['grid'], grid),
    }
    return target_of(
        'mmwave.MLPMixer',
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
    return {
        **layer_shapes('norm1', dim),
        **layer_shapes('token_mlp.fc1', arch['token_mlp_dim'], positions),
        **layer_shapes('token_mlp.fc2', positions, arch['token_mlp_dim']),
        **layer_shapes('norm2', dim),
        **layer_shapes('channel_mlp.fc1', arch['channel_mlp_dim'], dim),
        **layer_shapes('channel_mlp.fc2', dim, arch['channel_mlp_dim']),
    }


FAMILY = Family(
    name='mlp_mixer',
    recognise=recognise,
    inspected=Inspected(norm_eps=(NormEps(r'.*', 1e-6, setting='norm_eps'),), recognise=recognise),
    releases=(
        Release(
            framework='jax',
            origin='google-research/vision_transformer vit_jax/models_mixer.py',
            licence='Apache-2.0',
            marks=('stem/kernel', 'MixerBlock_0/token_mixing/Dense_0/kernel'),
            names=(_FLAX_NAMES,),
            settings={'act_cfg': {'type': 'GELU', 'approximate': 'tanh'}},
        ),
        Release(
            framework='pytorch',
            origin=TIMM,
            licence='Apache-2.0',
            marks=('stem.proj.weight', 'blocks.0.mlp_tokens.fc1.weight'),
        ),
        Release(
            framework='pytorch',
            origin='open-mmlab/mmpretrain configs/mlp_mixer',
            licence='Apache-2.0',
            marks=(
                'backbone.patch_embed.projection.weight',
                'backbone.layers.0.token_mix.layers.0.0.weight',
            ),
            names=(_MMPRETRAIN_NAMES,),
            settings={'norm_eps': 1e-5},
        ),
        Release(
            framework='paddle',
            origin='BR-IDL/PaddleViT image_classification/MLP-Mixer',
            licence='Apache-2.0',
            marks=('patch_embed.patch_embed.weight', 'mixer_layers.0.mlp_tokens.fc1.weight'),
            names=(PADDLEVIT_NAMES,),
        ),
    ),
)
