"""Vision Permutator: Andrew-Qibin/VisionPermutator.

Its segments are as many as its maps have rows, which no shape tells: the weights are taken to be
for the images of 224 x 224 pixels that all published ones were trained on.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn

from mmwave.errors import UserError

from .family import Family, Inspected, NormEps, Release, Shapes, Target
from .rules import Rule, rename
from .shapes import Shape, custom_arch, layer_shapes

_STAGES = range(4)
_IMAGE = 224
_DEFAULTS: dict[str, Any] = {'mlp_ratio': 3}


def _arch(
    depths: tuple[int, ...],
    dims: tuple[int, ...],
    grids: tuple[int, ...],
    patch_size: int = 7,
    mlp_ratio: int = 3,
) -> dict[str, Any]:
    """Sizes as a file tells them; ``grids`` are the sides of squares."""
    return {
        'depths': depths,
        'dims': dims,
        'patch_size': patch_size,
        'grids': grids,
        'mlp_ratio': mlp_ratio,
    }


ARCHS: Mapping[str, dict[str, Any]] = {
    's14': _arch((4, 3, 8, 3), (384,) * 4, (16,) * 4, patch_size=14),
    's7': _arch((4, 3, 8, 3), (192, 384, 384, 384), (32, 16, 16, 16)),
    'm7': _arch((4, 3, 14, 3), (256, 256, 512, 512), (32, 32, 16, 16)),
    'l7': _arch((8, 8, 16, 4), (256, 512, 512, 512), (32, 16, 16, 16)),
}
"""The named archs by what a file's names and shapes tell."""

_BLOCK = (
    (r'(norm[12]\.\w+)', r'\2'),
    (r'attn\.mlp_h\.(\w+)', r'mixer.height.\2'),
    (r'attn\.mlp_w\.(\w+)', r'mixer.width.\2'),
    (r'attn\.mlp_c\.(\w+)', r'mixer.channel.\2'),
    (r'attn\.((?:reweight\.fc[12]|proj)\.\w+)', r'mixer.\2'),
    (r'(mlp\.fc[12]\.\w+)', r'\2'),
)


def _rules(stages: list[int], transitions: dict[int, int]) -> Iterator[Rule]:
    """Rules for an arch.

    Args:
        stages: number of every stage in the release's list of stages and transitions.
        transitions: stage -> number of the transition in front of it.
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


def recognise(shapes: Shapes) -> Target:
    """Tell the arch from the published names and shapes.

    Raises:
        ValueError: where the shapes are of no Vision Permutator that we build.
    """
    stages, transitions = _network(shapes)
    stem = shapes.get('patch_embed.proj.weight', ())
    if len(stem) != 4 or 0 in stem or stem[2] != stem[3]:
        raise UserError(
            f'no Vision Permutator: patch_embed.proj.weight of shape {stem} is no convolution of '
            'square patches'
        )
    patch_size = stem[2]
    depths, dims, grids, ratios = [], [], [], []
    stride = patch_size
    for stage, number in enumerate(stages):
        lead = f'network.{number}.'
        hidden, dim = shapes[f'{lead}0.mlp.fc1.weight']
        stride *= 2 if stage in transitions else 1
        side = _IMAGE // stride
        if hidden % dim or _IMAGE % stride or dim % side:
            raise UserError(
                f'stage {stage} has {dim} channels, {hidden} hidden ones and a stride of {stride}: '
                f'channels must divide the hidden ones, the stride {_IMAGE} pixels, and the '
                'positions along a side the channels'
            )
        depths.append(len({name.split('.')[2] for name in shapes if name.startswith(lead)}))
        dims.append(dim)
        grids.append(side)
        ratios.append(hidden // dim)
    if len(set(ratios)) > 1:
        raise UserError(f'stages with mlp_ratio {ratios}: it must be alike in all of them')
    arch = _arch(tuple(depths), tuple(dims), tuple(grids), patch_size, ratios[0])
    named = next((name for name, known in ARCHS.items() if known == arch), None)
    backbone: dict[str, Any] = {'type': 'mmwave.ViP', 'arch': named or custom_arch(arch, _DEFAULTS)}
    channels = stem[1]
    if channels != 3:
        backbone['in_channels'] = channels
    expected = _expected(arch, channels, transitions, shapes.get('head.weight'))
    return Target(named or 'custom', backbone, expected, rules=tuple(_rules(stages, transitions)))


def _network(shapes: Shapes) -> tuple[list[int], dict[int, int]]:
    """Numbers of the stages, and of the transition in front of a stage where there is one."""
    pattern = re.compile(r'network\.(\d+)\..*')
    numbers = {int(found[1]) for found in map(pattern.fullmatch, shapes) if found}
    stages: list[int] = []
    transitions: dict[int, int] = {}
    for number in sorted(numbers):
        if f'network.{number}.proj.weight' in shapes:
            transitions[len(stages)] = number
            continue
        first = f'network.{number}.0.mlp.fc1.weight'
        if len(shapes.get(first, ())) != 2 or 0 in shapes[first]:
            raise UserError(f'no Vision Permutator: {first} is not a matrix')
        stages.append(number)
    if len(stages) != len(_STAGES) or not transitions.keys() <= set(_STAGES[1:]):
        raise UserError(
            f'no Vision Permutator of {len(_STAGES)} stages: its stages are {stages}, its '
            f'transitions {list(transitions.values())} in network'
        )
    return stages, transitions


def _expected(
    arch: Mapping[str, Any], channels: int, transitions: Mapping[int, int], head: Shape | None
) -> dict[str, Shape]:
    dims, patch = arch['dims'], arch['patch_size']
    found = layer_shapes('backbone.stem.conv', dims[0], channels, patch, patch)
    for stage, dim in enumerate(dims):
        if stage in transitions:
            lead = f'backbone.downsamples.{stage - 1}.conv'
            found |= layer_shapes(lead, dim, dims[stage - 1], 2, 2)
        for block in range(arch['depths'][stage]):
            found |= _block(f'backbone.stages.{stage}.{block}', dim, arch['mlp_ratio'] * dim)
    found |= layer_shapes('backbone.out_norms.3', dims[-1])
    return found | (layer_shapes('head.fc', head[0], dims[-1]) if head else {})


def _block(name: str, dim: int, hidden: int) -> dict[str, Shape]:
    found = layer_shapes(f'{name}.norm1', dim) | layer_shapes(f'{name}.norm2', dim)
    for part in ('height', 'width', 'channel'):
        found |= layer_shapes(f'{name}.mixer.{part}', dim, dim, bias=False)
    return {
        **found,
        **layer_shapes(f'{name}.mixer.reweight.fc1', dim // 4, dim),
        **layer_shapes(f'{name}.mixer.reweight.fc2', 3 * dim, dim // 4),
        **layer_shapes(f'{name}.mixer.proj', dim, dim),
        **layer_shapes(f'{name}.mlp.fc1', hidden, dim),
        **layer_shapes(f'{name}.mlp.fc2', dim, hidden),
    }


def _check_segments(model: nn.Module, target: Target) -> None:
    """Raise ``ValueError`` where a model in memory was built for images of another size."""
    arch = ARCHS.get(target.arch) or target.backbone['arch']
    wanted = [
        s for s, depth in zip(arch['grids'], arch['depths'], strict=True) for _ in range(depth)
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
