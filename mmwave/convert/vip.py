"""Vision Permutator: Andrew-Qibin/VisionPermutator.

The number of its segments is that of its maps' rows, which no shape determines: the weights are
assumed to be for images of 224 x 224 pixels, as all published ones are.
"""

import re
from collections.abc import Iterator
from typing import Any

from torch import nn

from mmwave.errors import UserError
from mmwave.models import ViP

from .family import Family, Inspected, NormEps, Recognised, Release, Shapes
from .rules import Rule, rename
from .sizes import blocks_of, classes_of, ratio_of, shape_of

_NAME = 'Vision Permutator'
_STAGES = range(4)
_IMAGE = 224

_BLOCK = (
    (r'(norm[12]\.\w+)', r'\2'),
    (r'attn\.mlp_h\.(\w+)', r'mixer.height.\2'),
    (r'attn\.mlp_w\.(\w+)', r'mixer.width.\2'),
    (r'attn\.mlp_c\.(\w+)', r'mixer.channel.\2'),
    (r'attn\.((?:reweight\.fc[12]|proj)\.\w+)', r'mixer.\2'),
    (r'(mlp\.fc[12]\.\w+)', r'\2'),
)


def _rules(stages: list[int], transitions: dict[int, int]) -> Iterator[Rule]:
    """Yield the rules of an arch.

    Args:
        stages: number of every stage in the release's list of stages and transitions.
        transitions: stage -> number of the transition before it.
    """
    yield rename(r'patch_embed\.proj\.(\w+)', r'backbone.stem.conv.\1')
    for stage, number in enumerate(stages):
        for published, ours in _BLOCK:
            yield rename(
                rf'network\.{number}\.(\d+)\.{published}', rf'backbone.stages.{stage}.\1.{ours}'
            )
    for stage, number in transitions.items():
        yield rename(
            rf'network\.{number}\.proj\.(\w+)', rf'backbone.downsamples.{stage - 1}.conv.\1'
        )
    yield rename(r'norm\.(\w+)', r'backbone.out_norms.3.\1')
    yield rename(r'head\.(\w+)', r'head.fc.\1')


def recognise(shapes: Shapes) -> Recognised:
    """Return the Vision Permutator that the published names and shapes describe."""
    numbers, transitions = _network(shapes)
    _, channels, height, width = shape_of(shapes, 'patch_embed.proj.weight', 4, _NAME)
    if height != width:
        raise UserError(f'no {_NAME}: patches of {height} x {width} pixels are no squares')
    stages = []
    stride = height
    for stage, number in enumerate(numbers):
        stride *= 2 if stage in transitions else 1
        lead = f'network.{number}.'
        hidden, dim = shapes[f'{lead}0.mlp.fc1.weight']
        sizes = {
            'depths': blocks_of(shapes, lead),
            'dims': dim,
            'grids': ratio_of(_IMAGE, stride, f'pixels of an image and stride of stage {stage}'),
            'mlp_ratio': ratio_of(hidden, dim, f'hidden channels of stage {stage}'),
        }
        stages.append(sizes)
    arch: dict[str, Any] = {key: tuple(stage[key] for stage in stages) for key in stages[0]}
    if len(set(arch['mlp_ratio'])) > 1:
        raise UserError(f'stages with mlp_ratio {arch["mlp_ratio"]}: expected one for all of them')
    arch['mlp_ratio'] = arch['mlp_ratio'][0]
    return Recognised(
        arch={**arch, 'patch_size': height},
        in_channels=channels,
        classes=classes_of(shapes),
        rules=tuple(_rules(numbers, transitions)),
    )


def _network(shapes: Shapes) -> tuple[list[int], dict[int, int]]:
    """Return the number of every stage, and stage -> number of the transition before it."""
    pattern = re.compile(r'network\.(\d{1,9})\..*')
    numbers = {int(found[1]) for found in map(pattern.fullmatch, shapes) if found}
    stages: list[int] = []
    transitions: dict[int, int] = {}
    for number in sorted(numbers):
        if f'network.{number}.proj.weight' in shapes:
            transitions[len(stages)] = number
            continue
        first = f'network.{number}.0.mlp.fc1.weight'
        shape_of(shapes, first, 2, _NAME)
        stages.append(number)
    if len(stages) != len(_STAGES) or not transitions.keys() <= set(_STAGES[1:]):
        raise UserError(
            f'no {_NAME} of {len(_STAGES)} stages: its stages are {stages}, its '
            f'transitions {list(transitions.values())} in network'
        )
    return stages, transitions


def _check_segments(model: nn.Module, arch: Any) -> None:
    """Raise ``UserError`` where a model in memory was built for images of another size."""
    wanted = [
        height
        for (height, _), depth in zip(arch.grids, arch.depths, strict=True)
        for _ in range(depth)
    ]
    given = [getattr(part, 'segment_dim', None) for part in model.modules()]
    found = [segments for segments in given if segments is not None]
    if found and found != wanted:
        raise UserError(
            f'a Vision Permutator with segment_dim {list(dict.fromkeys(found))}, where images of '
            f'{_IMAGE} x {_IMAGE} pixels have {list(dict.fromkeys(wanted))}'
        )


FAMILY = Family(
    name='vip',
    backbone=ViP,
    recognise=recognise,
    inspected=Inspected(norm_eps=(NormEps(r'.*', 1e-5),), check=_check_segments),
    releases=(
        Release(
            framework='pytorch',
            origin='Andrew-Qibin/VisionPermutator models/vip.py',
            # MIT, and its README adds: for non-commercial use only.
            licence='LicenseRef-MIT-non-commercial',
            marks=(
                'patch_embed.proj.weight',
                'network.0.0.attn.mlp_h.weight',
                'network.0.0.attn.mlp_c.weight',
            ),
        ),
    ),
)
