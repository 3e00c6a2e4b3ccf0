"""CycleMLP: ShoufaChen/CycleMLP and BR-IDL/PaddleViT.

Both releases have the same names. The authors' files are training checkpoints whose published
accuracy is of the raw weights: their evaluation does not read the averaged ones beside them. Each
Cycle FC holds a table of offsets, which is compared with what our model computes, and dropped.
"""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from mmwave.models import CycleMLP
from mmwave.models.backbones.cyclemlp import cycle_offsets

from .family import Family, Recognised, Release, Shapes
from .rules import DENSE_NAMES, Rule, drop, rename, transform
from .sizes import blocks_of, classes_of, ratio_of, shape_of

_NAME = 'CycleMLP'
_STAGES = range(4)

_BLOCK = (
    ('norm1', 'norm1'),
    (r'attn\.sfc_h', 'mixer.width'),  # it reads along the width
    (r'attn\.sfc_w', 'mixer.height'),
    ('norm2', 'norm2'),
)
_LINEAR = (
    (r'attn\.mlp_c', 'mixer.channel'),
    (r'attn\.reweight\.(fc[12])', r'mixer.reweight.\2'),
    (r'attn\.proj', 'mixer.proj'),
    (r'mlp\.(fc[12])', r'mlp.\2'),
)


def _offset_table(table: Tensor, axis: int) -> Tensor:
    """Return what ``table`` must be: (1, 2 * C, 1, 1), channel after channel its (dy, dx)."""
    pairs = torch.zeros(table.numel() // 2, 2)
    pairs[:, axis] = torch.tensor(cycle_offsets(len(pairs)), dtype=pairs.dtype)
    return pairs.reshape(1, -1, 1, 1)


def _rules() -> Iterator[Rule]:
    for name, axis in (('sfc_w', 0), ('sfc_h', 1)):
        yield drop(
            rf'network\.\d+\.\d+\.attn\.{name}\.offset',
            'tables of offsets, which are computed',
            partial(_offset_table, axis=axis),
        )
    yield rename(r'patch_embed\.proj\.(\w+)', r'backbone.stem.conv.\1')
    for stage in _STAGES:
        blocks, ours = rf'network\.{2 * stage}\.(\d+)\.', rf'backbone.stages.{stage}.\1.'
        for theirs, name in _BLOCK:
            yield rename(rf'{blocks}{theirs}\.(\w+)', rf'{ours}{name}.\2')
        for theirs, name in _LINEAR:
            yield transform(rf'{blocks}{theirs}\.weight', f'{ours}{name}.weight', 'pointwise')
            yield rename(rf'{blocks}{theirs}\.bias', f'{ours}{name}.bias')
        yield rename(rf'norm{2 * stage}\.(\w+)', rf'backbone.out_norms.{stage}.\1')
        yield rename(
            rf'network\.{2 * stage + 1}\.proj\.(\w+)', rf'backbone.downsamples.{stage}.conv.\1'
        )
    yield rename(r'norm\.(\w+)', r'backbone.out_norms.3.\1')
    yield rename(r'head\.(\w+)', r'head.fc.\1')


PADDLEVIT_NAMES = (
    # Paddle stores the weights of linear layers as (in, out), those of a Cycle FC as torch does.
    transform(r'(.+\.(?:mlp_c|fc[12])|.+\.attn\.proj|head)\.weight', r'\1.weight', 'transpose'),
    rename(r'(.*)', r'\1'),
)


def recognise(shapes: Shapes) -> Recognised:
    """Return the CycleMLP that the published (torch) names and shapes describe."""
    stages = [_stage(shapes, i) for i in _STAGES]
    _, channels, *_ = shape_of(shapes, 'patch_embed.proj.weight', 4, _NAME)
    levels = (i for i in _STAGES[:-1] if f'norm{2 * i}.weight' in shapes)
    return Recognised(
        arch={key: tuple(stage[key] for stage in stages) for key in stages[0]},
        in_channels=channels,
        classes=classes_of(shapes),
        out_indices=(*levels, _STAGES[-1]),
    )


def _stage(shapes: Shapes, stage: int) -> dict[str, int]:
    """Return the sizes of a stage, read from its first block."""
    lead = f'network.{2 * stage}.'
    hidden, dim = shape_of(shapes, f'{lead}0.mlp.fc1.weight', 2, _NAME)
    return {
        'depths': blocks_of(shapes, lead),
        'dims': dim,
        'mlp_ratios': ratio_of(hidden, dim, f'hidden channels of stage {stage}'),
    }


_MARKS = ('patch_embed.proj.weight', 'network.0.0.attn.sfc_h.weight')

FAMILY = Family(
    name='cyclemlp',
    backbone=CycleMLP,
    rules=tuple(_rules()),
    recognise=recognise,
    releases=(
        Release(
            framework='pytorch',
            origin='ShoufaChen/CycleMLP',
            licence='MIT',
            marks=_MARKS,
            weights='model',
        ),
        # None was released; one that was trained with the release's dense classes has these names.
        Release(
            framework='pytorch',
            origin='ShoufaChen/CycleMLP, a detector or segmentor',
            licence='MIT',
            marks=tuple(f'backbone.{mark}' for mark in _MARKS),
            names=(DENSE_NAMES,),
            weights='model',
        ),
        Release(
            framework='paddle',
            origin='BR-IDL/PaddleViT image_classification/CycleMLP',
            licence='Apache-2.0',
            marks=_MARKS,
            names=(PADDLEVIT_NAMES,),
        ),
    ),
)
