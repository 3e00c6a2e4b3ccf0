"""ActiveMLP: microsoft/TokenMixers (``Active Token Mixer``), formerly microsoft/ActiveMLP.

Classifiers are training checkpoints whose published accuracy is of the averaged weights; a
segmentor has the same names of parts behind a prefix. How many channels share an offset follows
from the rows of the layers that predict offsets, their interval from the blocks that have one.
"""

from collections.abc import Iterator

from mmwave.models import ActiveMLP

from .family import Family, Recognised, Release, Shapes
from .rules import DENSE_NAMES, Rule, rename, transform
from .sizes import blocks_of, classes_of, ratio_of, shape_of

_NAME = 'ActiveMLP'
_STAGES = range(4)
_ORIGIN = 'microsoft/TokenMixers Active Token Mixer'

_BLOCK = (
    ('norm1', 'norm1'),
    (r'offset_layer\.0', 'offsets.norm'),
    (r'atm\.atm_w', 'mixer.width'),
    (r'atm\.atm_h', 'mixer.height'),
    ('norm2', 'norm2'),
)
_LINEAR = (
    (r'offset_layer\.1', 'offsets.proj'),
    (r'atm\.atm_c', 'mixer.channel'),
    (r'atm\.fusion\.(fc[12])', r'mixer.reweight.\2'),
    (r'atm\.proj', 'mixer.proj'),
    (r'mlp\.(fc[12])', r'mlp.\2'),
)


def _rules() -> Iterator[Rule]:
    yield rename(r'patch_embed\.proj\.(\w+)', r'backbone.stem.conv.\1')
    for stage in _STAGES:
        blocks, ours = rf'blocks\.{stage}\.(\d+)\.', rf'backbone.stages.{stage}.\1.'
        for theirs, name in _BLOCK:
            yield rename(rf'{blocks}{theirs}\.(\w+)', rf'{ours}{name}.\2')
        for theirs, name in _LINEAR:
            yield transform(rf'{blocks}{theirs}\.weight', f'{ours}{name}.weight', 'pointwise')
            yield rename(rf'{blocks}{theirs}\.bias', f'{ours}{name}.bias')
        yield rename(
            rf'blocks\.{stage}\.\d+\.downsample\.proj\.(\w+)',
            rf'backbone.downsamples.{stage}.conv.\1',
        )
        yield rename(
            rf'pos_blocks\.{stage}\.proj\.(\w+)', rf'backbone.stages.{stage}.0.position.\1'
        )
        yield rename(rf'norm_{stage}\.(\w+)', rf'backbone.out_norms.{stage}.\1')
    yield rename(r'norm\.(\w+)', r'backbone.out_norms.3.\1')
    yield rename(r'head\.(\w+)', r'head.fc.\1')


def recognise(shapes: Shapes) -> Recognised:
    """Return the ActiveMLP that the published names and shapes describe."""
    stages = [_stage(shapes, i) for i in _STAGES]
    _, channels, *_ = shape_of(shapes, 'patch_embed.proj.weight', 4, _NAME)
    levels = (i for i in _STAGES[:-1] if f'norm_{i}.weight' in shapes)
    return Recognised(
        arch={
            **{key: tuple(stage[key] for stage in stages) for key in stages[0]},
            'interval': _interval(shapes, max(stage['depths'] for stage in stages)),
        },
        in_channels=channels,
        classes=classes_of(shapes),
        out_indices=(*levels, _STAGES[-1]),
    )


def _stage(shapes: Shapes, stage: int) -> dict[str, int]:
    """Return the sizes of a stage, read from its first block."""
    lead = f'blocks.{stage}.'
    hidden, dim = shape_of(shapes, f'{lead}0.mlp.fc1.weight', 2, _NAME)
    rows, _ = shape_of(shapes, f'{lead}0.offset_layer.1.weight', 2, _NAME)
    return {
        'depths': blocks_of(shapes, lead),
        'dims': dim,
        'mlp_ratios': ratio_of(hidden, dim, f'hidden channels of stage {stage}'),
        'shares': ratio_of(2 * dim, rows, f'offsets of stage {stage}, two a channel'),
    }


def _interval(shapes: Shapes, depth: int) -> int:
    """Return the first block but 0 that predicts offsets, in whatever stage has such a block.

    Where none has, every interval from the deepest stage's last block on is the same.
    """
    for block in range(1, depth):
        if any(f'blocks.{stage}.{block}.offset_layer.1.weight' in shapes for stage in _STAGES):
            return block
    return max(depth - 1, 1)


_MARKS = ('patch_embed.proj.weight', 'blocks.0.0.atm.atm_h.weight')

FAMILY = Family(
    name='activemlp',
    backbone=ActiveMLP,
    rules=tuple(_rules()),
    recognise=recognise,
    releases=(
        Release(framework='pytorch', origin=_ORIGIN, licence='MIT', marks=_MARKS),
        Release(
            framework='pytorch',
            origin=f'{_ORIGIN}/segmentation',
            licence='MIT',
            marks=tuple(f'backbone.{mark}' for mark in _MARKS),
            names=(DENSE_NAMES,),
        ),
    ),
)
