"""Wave-MLP: huawei-noah/Efficient-AI-Backbones (``wavemlp_pytorch``) and mindspore-ai/models.

Both releases have the same names of parts. MindSpore's GELU is the tanh approximation, so the
converter writes ``act_cfg`` for its weights.
"""

from collections.abc import Iterator

from mmwave.models import WaveMLP

from .family import Family, Recognised, Release, Shapes
from .rules import MINDSPORE_FILLS, MINDSPORE_NAMES, Rule, drop, rename
from .sizes import blocks_of, classes_of, ratio_of, shape_of

_NAME = 'Wave-MLP'
_STAGES = range(4)

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
    """Yield the rules of a stage, of its output norm in dense files and of its downsample."""
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


def recognise(shapes: Shapes) -> Recognised:
    """Return the Wave-MLP that the published (torch) names and shapes describe."""
    stages = [_stage(shapes, i) for i in _STAGES]
    _, channels, *_ = shape_of(shapes, 'patch_embed.proj.weight', 4, _NAME)
    phase = shapes.get('network.0.0.attn.theta_h_conv.0.weight', ())
    levels = (i for i in _STAGES[:-1] if f'norm{2 * i}.weight' in shapes)
    return Recognised(
        arch={
            **{key: tuple(stage[key] for stage in stages) for key in stages[0]},
            'phase': 'dw' if phase[2:] == (3, 3) else 'fc',
            'norm': 'BN' if 'network.0.0.norm1.running_mean' in shapes else 'GN',
            'stem_norm': 'patch_embed.norm.weight' in shapes,
        },
        in_channels=channels,
        classes=classes_of(shapes),
        out_indices=(*levels, _STAGES[-1]),
    )


def _stage(shapes: Shapes, stage: int) -> dict[str, int]:
    """Return the sizes of a stage, read from its first block."""
    lead = f'network.{2 * stage}.'
    hidden, dim, *_ = shape_of(shapes, f'{lead}0.mlp.fc1.weight', 4, _NAME)
    return {
        'depths': blocks_of(shapes, lead),
        'dims': dim,
        'mlp_ratios': ratio_of(hidden, dim, f'hidden channels of stage {stage}'),
    }


_MARKS = (
    'patch_embed.proj.weight',
    'network.0.0.attn.fc_h.weight',
    'network.0.0.attn.tfc_h.weight',
    'network.0.0.attn.theta_h_conv.0.weight',
)

FAMILY = Family(
    name='wavemlp',
    backbone=WaveMLP,
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
