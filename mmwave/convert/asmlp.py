"""AS-MLP: svip-lab/AS-MLP and its repositories of detectors and segmentors.

The authors' classifiers are checkpoints of Swin's training script. No tensor determines the shift
size: such a checkpoint states it in its config, a detector's or a segmentor's in the text of its
config. Where neither does, it is that of all released classifiers.
"""

import re
from collections.abc import Mapping
from typing import Any

from mmwave.checkpoint import brief
from mmwave.errors import UserError
from mmwave.models import ASMLP

from .family import Family, Recognised, Release, Shapes, Stated
from .rules import DENSE_NAMES, Rule, rename
from .sizes import blocks_of, classes_of, ratio_of, shape_of

_NAME = 'AS-MLP'
_STAGES = range(4)
_MAX_SHIFT_SIZE = 99  # a wider shift moves most channels out of any map
# As an argument or an entry of a dict; not what is commented out.
_SHIFT_SIZE = re.compile(r"""^[^#\n]*?\bshift_size(?:\s*=|['"]\s*:)\s*(\d{1,9})\b""", re.MULTILINE)

_BLOCK = (
    ('norm1', 'norm1'),
    ('norm2', 'norm2'),
    (r'mlp\.fc1', 'mlp.fc1'),
    (r'mlp\.fc2', 'mlp.fc2'),
    (r'axial_shift\.conv1', 'mixer.conv1'),
    (r'axial_shift\.norm1', 'mixer.norm1'),
    (r'axial_shift\.conv2_1', 'mixer.conv_w'),
    (r'axial_shift\.conv2_2', 'mixer.conv_h'),
    (r'axial_shift\.norm2', 'mixer.norm2'),
    (r'axial_shift\.conv3', 'mixer.conv2'),
)

RULES: tuple[Rule, ...] = (
    rename(r'patch_embed\.proj\.(\w+)', r'backbone.stem.conv.\1'),
    rename(r'patch_embed\.norm\.(\w+)', r'backbone.stem.norm.\1'),
    *(
        rename(
            rf'layers\.([0-3])\.blocks\.(\d+)\.{published}\.(\w+)',
            rf'backbone.stages.\1.\2.{ours}.\3',
        )
        for published, ours in _BLOCK
    ),
    rename(
        r'layers\.([0-2])\.downsample\.((?:norm|reduction)\.\w+)', r'backbone.downsamples.\1.\2'
    ),
    rename(r'norm([0-3])\.(\w+)', r'backbone.out_norms.\1.\2'),
    rename(r'norm\.(\w+)', r'backbone.out_norms.3.\1'),
    rename(r'head\.(\w+)', r'head.fc.\1'),
)


def recognise(shapes: Shapes) -> Recognised:
    """Return the AS-MLP that the published names and shapes describe."""
    stages = [_stage(shapes, i) for i in _STAGES]
    arch: dict[str, Any] = {key: tuple(stage[key] for stage in stages) for key in stages[0]}
    ratios = arch.pop('mlp_ratios')
    if len(set(ratios)) > 1:
        raise UserError(f'stages with mlp_ratio {ratios}: expected one for all of them')
    _, channels, *_ = shape_of(shapes, 'patch_embed.proj.weight', 4, _NAME)
    levels = (i for i in _STAGES[:-1] if f'norm{i}.weight' in shapes)
    return Recognised(
        arch={**arch, 'mlp_ratio': ratios[0]},
        in_channels=channels,
        classes=classes_of(shapes),
        out_indices=(*levels, _STAGES[-1]),
    )


def _stage(shapes: Shapes, stage: int) -> dict[str, int]:
    """Return the sizes of a stage, read from its first block."""
    lead = f'layers.{stage}.blocks.'
    hidden, dim, *_ = shape_of(shapes, f'{lead}0.mlp.fc1.weight', 4, _NAME)
    return {
        'depths': blocks_of(shapes, lead),
        'dims': dim,
        'mlp_ratios': ratio_of(hidden, dim, f'hidden channels of stage {stage}'),
    }


def shift_size_of(stated: Mapping[str, Any]) -> Stated:
    """Return the shift size that a checkpoint states where it is not the published one, and a note.

    Raises:
        UserError: where it is none of our backbone's.
    """
    published = ASMLP.published['shift_size']
    size = _config_entry(stated.get('config'), 'MODEL', 'ASMLP', 'SHIFT_SIZE')
    if size is None:
        meta = stated.get('meta')
        # The text of a config, under mmcv's name or mmengine's.
        texts = (str(_config_entry(meta, key) or '') for key in ('config', 'cfg'))
        found = sorted({int(size) for text in texts for size in _SHIFT_SIZE.findall(text)})
        if len(found) == 1:
            (size,) = found
        else:
            states = 'nothing in it states the shift size'
            if found:
                states = f'it states the shift sizes {found}'
            return {}, (f'{states}, assumed {published} as in all classifiers',)
    if type(size) is not int or size % 2 == 0 or not 0 < size <= _MAX_SHIFT_SIZE:
        raise UserError(
            f'the file states a shift size of {brief(size)}: expected an odd number from 1 to '
            f'{_MAX_SHIFT_SIZE}'
        )
    return ({} if size == published else {'shift_size': size}), ()


def _config_entry(config: Any, *path: str) -> Any:
    """Return what stands at the end of a path of keys; None where there is nothing."""
    for key in path:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config


_MARKS = (
    'patch_embed.proj.weight',
    'layers.0.blocks.0.axial_shift.conv1.weight',
    'layers.0.blocks.0.axial_shift.conv2_1.weight',
)

FAMILY = Family(
    name='asmlp',
    backbone=ASMLP,
    rules=RULES,
    recognise=recognise,
    stated=shift_size_of,
    releases=(
        Release(
            framework='pytorch',
            origin='svip-lab/AS-MLP',
            licence='MIT',
            marks=_MARKS,
        ),
        Release(
            framework='pytorch',
            origin='svip-lab/AS-MLP-Object-Detection and AS-MLP-Semantic-Segmentation',
            licence='Apache-2.0',
            marks=tuple(f'backbone.{mark}' for mark in _MARKS),
            names=(DENSE_NAMES,),
        ),
    ),
)
