"""MLP-Mixer: google-research/vision_transformer, timm, mmpretrain and BR-IDL/PaddleViT.

The GELU of Google's code is flax's, the tanh approximation, so the converter writes ``act_cfg`` for
its weights. timm's ports of the same weights use the exact one.

mmpretrain's norms have an epsilon of 1e-5, so the converter writes ``norm_eps=1e-5`` for its
weights; all others' have 1e-6.

timm's gMixer has the names of MLP-Mixer, but the halves of its hidden channels gate each other. It
is recognised by its shapes and refused.
"""

from mmwave.errors import UserError
from mmwave.models import MLPMixer

from .family import Family, Inspected, NormEps, Recognised, Release, Shapes
from .isotropic import NORM, PADDLEVIT_NAMES, TIMM, Part, recognised, stem_of
from .rules import rename, transform
from .sizes import shape_of

_NAME = 'MLP-Mixer'

_BLOCK: tuple[Part, ...] = (
    (r'(norm[12]\.\w+)', r'\1'),
    (r'mlp_tokens\.(fc[12]\.\w+)', r'token_mlp.\1'),
    (r'mlp_channels\.(fc[12]\.\w+)', r'channel_mlp.\1'),
)

# flax numbers the layers of a kind from 0, and stores kernels as (in, out) and (kh, kw, in, out).
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


def recognise(shapes: Shapes) -> Recognised:
    """Return the MLP-Mixer that timm's names and shapes describe."""
    stem = stem_of(shapes, _NAME)
    _, positions = shape_of(shapes, 'blocks.0.mlp_tokens.fc1.weight', 2, _NAME)
    arch = {
        f'{part}_mlp_dim': _hidden(shapes, f'blocks.0.mlp_{part}s') for part in ('token', 'channel')
    }
    return recognised(shapes, _NAME, arch, stem=stem, positions=positions, parts=_BLOCK, norm=NORM)


def _hidden(shapes: Shapes, mlp: str) -> int:
    """Return the hidden size of an MLP without gates."""
    hidden, _ = shape_of(shapes, f'{mlp}.fc1.weight', 2, _NAME)
    _, inputs = shape_of(shapes, f'{mlp}.fc2.weight', 2, _NAME)
    if hidden == 2 * inputs:
        raise UserError(
            f'of no known family: {mlp}.fc2 reads half of the {hidden} channels of fc1, so the '
            'other half gates it, as in the gMixer of timm; an MLP-Mixer has no gates'
        )
    return hidden


FAMILY = Family(
    name='mlp_mixer',
    backbone=MLPMixer,
    recognise=recognise,
    inspected=Inspected(norm_eps=(NormEps(r'.*', 1e-6, setting='norm_eps'),), grid=True),
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
