"""Wave-MLP: huawei-noah/Efficient-AI-Backbones (``wavemlp_pytorch``) and mindspore-ai/models.

Both releases name their parts alike. MindSpore's GELU is the tanh approximation, so the config of
the backbone that its weights are for says so.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mmwave.errors import UserError

from .family import Family, Release, Shapes, Target
from .rules import MINDSPORE_FILLS, MINDSPORE_NAMES, Rule, drop, rename
from .shapes import Shape, batch_norm_shapes, custom_arch, layer_shapes

_STAGES = range(4)
_TINY = (64, 128, 320, 512)


def _arch(
    depths: tuple[int, ...],
    dims: tuple[int, ...] = _TINY,
    mlp_ratios: tuple[int, ...] = (4, 4, 4, 4),
    norm: str = 'GN',
    stem_norm: bool = True,
) -> dict[str, Any]:
    return {
        'depths': depths,
        'dims': dims,
        'mlp_ratios': mlp_ratios,
        'norm': norm,
        'stem_norm': stem_norm,
    }


_SIZES = {
    't': _arch((2, 2, 4, 2), norm='BN'),
    's': _arch((2, 3, 10, 3)),
    'm': _arch((3, 4, 18, 3), mlp_ratios=(8, 8, 4, 4), stem_norm=False),
    'b': _arch((2, 2, 18, 2), dims=(96, 192, 384, 768), stem_norm=False),
}

ARCHS: Mapping[str, dict[str, Any]] = {
    **{name: {**sizes, 'phase': 'fc'} for name, sizes in _SIZES.items()},
    **{f'{name}-dw': {**sizes, 'phase': 'dw'} for name, sizes in _SIZES.items()},
}
"""The named archs by what a file's names and shapes tell."""

_BLOCK = (
    ('norm1', 'norm1'),
    ('norm2', 'norm2'),
    (r'mlp\.fc1', 'mlp.fc1'),
    (r'mlp\.fc2', 'mlp.fc2'),
    (r'attn\.fc_h', 'mixer.amplitude_h'),
    (r'attn\.fc_w', 'mixer.amplitude_w'),
    (r'attn\.fc_c', 'mixer.channel'),
    (r'attn\.theta_h_conv\.0', 'mixer.phase_h.conv'),
    (r'attn\.theta_h_conv\.1', 'mixer.phase_h.norm'),
    (r'attn\.theta_w_conv\.0', 'mixer.phase_w.conv'),
    (r'attn\.theta_w_conv\.1', 'mixer.phase_w.norm'),
    (r'attn\.reweight\.fc1', 'mixer.reweight.fc1'),
    (r'attn\.reweight\.fc2', 'mixer.reweight.fc2'),
    (r'attn\.proj', 'mixer.proj'),
)


def _stage_rules(stage: int) -> Iterator[Rule]:
    """Rules of a stage, of its output norm in dense files and of the downsample behind it."""
    here, blocks = 2 * stage, rf'network\.{2 * stage}\.(\d+)\.'
    for published, ours in _BLOCK:
        yield rename(rf'{blocks}{published}\.(\w+)', rf'backbone.stages.{stage}.\1.{ours}.\2')
    for axis in 'hw':
        yield rename(
            rf'{blocks}attn\.tfc_{axis}\.weight',
            rf'backbone.stages.{stage}.\1.mixer.kernel_{axis}',
        )
    yield rename(rf'norm{here}\.(\w+)', rf'backbone.out_norms.{stage}.\1')
    yield rename(rf'network\.{here + 1}\.proj\.(\w+)', rf'backbone.downsamples.{stage}.conv.\1')
    yield rename(rf'network\.{here + 1}\.norm\.(\w+)', rf'backbone.downsamples.{stage}.norm.\1')


RULES = (
    drop(
        r'(?:.*\.)?total_(?:ops|params)', "counters that thop's profile() left in the trained model"
    ),
    rename(r'patch_embed\.proj\.(\w+)', r'backbone.stem.conv.\1'),
    rename(r'patch_embed\.norm\.(\w+)', r'backbone.stem.norm.\1'),
    *(rule for stage in _STAGES for rule in _stage_rules(stage)),
    rename(r'norm\.(\w+)', r'backbone.out_norms.3.\1'),
    rename(r'head\.(\w+)', r'head.fc.\1'),
)


def recognise(shapes: Shapes) -> Target:
    """Tell the arch from the published (torch) names and shapes.

    Raises:
        ValueError: where a stage is missing, or its shapes are of no Wave-MLP.
    """
    depths, dims, ratios = [], [], []
    for stage in _STAGES:
        lead = f'network.{2 * stage}.'
        blocks = {name.split('.')[2] for name in shapes if name.startswith(lead)}
        first = f'{lead}0.mlp.fc1.weight'
        if first not in shapes or len(shapes[first]) != 4:
            raise UserError(f'no Wave-MLP of {len(_STAGES)} stages: {first} is not a convolution')
        hidden, dim = shapes[first][:2]
        if not dim or hidden % dim:
            raise UserError(f'{first} widens {dim} channels to {hidden}, which is no multiple')
        depths.append(len(blocks))
        dims.append(dim)
        ratios.append(hidden // dim)
    stem = shapes['patch_embed.proj.weight']
    if len(stem) != 4:
        raise UserError(f'patch_embed.proj.weight of shape {stem} is not a convolution')
    phase = shapes.get('network.0.0.attn.theta_h_conv.0.weight', ())
    arch = _arch(
        tuple(depths),
        tuple(dims),
        tuple(ratios),
        norm='BN' if 'network.0.0.norm1.running_mean' in shapes else 'GN',
        stem_norm='patch_embed.norm.weight' in shapes,
    ) | {'phase': 'dw' if phase[2:] == (3, 3) else 'fc'}
    named = next((name for name, known in ARCHS.items() if known == arch), None)
    backbone: dict[str, Any] = {'type': 'mmwave.WaveMLP', 'arch': named or custom_arch(arch)}
    channels = stem[1]
    if channels != 3:
        backbone['in_channels'] = channels
    levels = [stage for stage in _STAGES if f'norm{2 * stage}.weight' in shapes] or [_STAGES[-1]]
    head = shapes.get('head.weight')
    return Target(named or 'custom', backbone, _expected(arch, channels, levels, head))


def _expected(
    arch: Mapping[str, Any], channels: int, levels: list[int], head: Shape | None
) -> dict[str, Shape]:
    """Names and shapes of our model of ``arch`` with output norms at ``levels``."""
    found: dict[str, Shape] = {}
    norm = batch_norm_shapes if arch['norm'] == 'BN' else layer_shapes
    widths = (channels, *arch['dims'])
    for stage, dim in enumerate(arch['dims']):
        part, size = (f'downsamples.{stage - 1}', 3) if stage else ('stem', 7)
        found |= layer_shapes(f'backbone.{part}.conv', dim, widths[stage], size, size)
        if arch['stem_norm']:
            found |= norm(f'backbone.{part}.norm', dim)
        for block in range(arch['depths'][stage]):
            name = f'backbone.stages.{stage}.{block}'
            found |= norm(f'{name}.norm1', dim) | norm(f'{name}.norm2', dim)
            found |= _mixer(f'{name}.mixer', dim, arch['phase'])
            hidden = dim * arch['mlp_ratios'][stage]
            found |= layer_shapes(f'{name}.mlp.fc1', hidden, dim, 1, 1)
            found |= layer_shapes(f'{name}.mlp.fc2', dim, hidden, 1, 1)
        if stage in levels:
            found |= norm(f'backbone.out_norms.{stage}', dim)
    return found | (layer_shapes('head.fc', head[0], widths[-1]) if head else {})


def _mixer(name: str, dim: int, phase: str) -> dict[str, Shape]:
    found: dict[str, Shape] = {}
    for part in ('amplitude_h', 'amplitude_w', 'channel'):
        found |= layer_shapes(f'{name}.{part}', dim, dim, 1, 1, bias=False)
    found |= {f'{name}.kernel_h': (dim, 2, 1, 7), f'{name}.kernel_w': (dim, 2, 7, 1)}
    for part in ('phase_h', 'phase_w'):
        if phase == 'dw':
            found |= layer_shapes(f'{name}.{part}.conv', dim, 1, 3, 3, bias=False)
        else:
            found |= layer_shapes(f'{name}.{part}.conv', dim, dim, 1, 1)
        found |= batch_norm_shapes(f'{name}.{part}.norm', dim)
    return {
        **found,
        **layer_shapes(f'{name}.reweight.fc1', dim // 4, dim, 1, 1),
        **layer_shapes(f'{name}.reweight.fc2', 3 * dim, dim // 4, 1, 1),
        **layer_shapes(f'{name}.proj', dim, dim, 1, 1),
    }


_MARKS = (
    'patch_embed.proj.weight',
    'network.0.0.attn.fc_h.weight',
    'network.0.0.attn.tfc_h.weight',
    'network.0.0.attn.theta_h_conv.0.weight',
)

FAMILY = Family(
    name='wavemlp',
    rules=RULES,
    recognise=recognise,
    releases=(
        Release(
            framework='pytorch',
            origin='huawei-noah/Efficient-AI-Backbones wavemlp_pytorch',
            licence='Apache-2.0',
            marks=_MARKS,
        ),
        Release(
            framework='mindspore',
            origin='mindspore-ai/models research/cv/wave_mlp',
            licence='Apache-2.0',
            marks=_MARKS,
            names=(MINDSPORE_NAMES,),
            fills=MINDSPORE_FILLS,
            settings={'act_cfg': {'type': 'GELU', 'approximate': 'tanh'}},
        ),
    ),
)
