"""What the tables of gMLP, ResMLP and MLP-Mixer share: blocks of one width, numbered through.

The rules of the three are for timm's names. Every release numbers its blocks from first to last;
ours are split into the stages that the backbone is tapped at, so the rules depend on the depth.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmwave.errors import UserError

from .family import Grid, Shapes, Target
from .rules import Rule, rename, transform
from .shapes import Shape, custom_arch, layer_shapes

Part = tuple[str, str] | tuple[str, str, str]
"""Pattern of a tensor's name in timm's block, ours in our block, and a transform where it has one.

Both may use groups; the pattern's are numbered from 1.
"""

TIMM = 'huggingface/pytorch-image-models timm/models/mlp_mixer.py'

NORM: tuple[Part, ...] = ((r'(weight|bias)', r'\1'),)
"""A norm of timm's, layer norms' names being ours."""

AFFINE = (('alpha', 'weight', 'vector'), ('beta', 'bias', 'vector'))
"""timm's norm of ResMLP, of shape (1, 1, C) there and (C) elsewhere."""

PADDLEVIT_NAMES = (
    rename(r'patch_embed\.patch_embed\.(\w+)', r'stem.proj.\1'),
    # Paddle keeps the weights of linear layers as (in, out), square ones too.
    transform(
        r'mixer_layers\.(.+\.(?:fc[12]|proj)|\d+\.linear_tokens)\.weight',
        r'blocks.\1.weight',
        'transpose',
    ),
    rename(r'mixer_layers\.(.*)', r'blocks.\1'),
    transform(r'head\.weight', 'head.weight', 'transpose'),
    rename(r'(.*)', r'\1'),
)
"""PaddleViT's names and layouts to timm's."""


@dataclass(frozen=True)
class Stem:
    """What the first convolution tells.

    Attributes:
        dim: channels of the map.
        channels: channels of the images.
        patch_size: pixels per position.
    """

    dim: int
    channels: int
    patch_size: int


def stages_of(depth: int) -> tuple[int, ...]:
    """Blocks of each of our stages: four parts as equal as can be."""
    # As models/backbones/grid.py has it, of which nothing may be imported here.
    return tuple((i + 1) * depth // 4 - i * depth // 4 for i in range(4))


def depths_of(shapes: Shapes, family: str) -> tuple[int, ...]:
    """Blocks of each of our stages, by the numbers of the published blocks.

    Raises:
        ValueError: where there are none.
    """
    blocks = {name.split('.')[1] for name in shapes if name.startswith('blocks.')}
    if not blocks:
        raise UserError(f'no {family}: no tensor is called blocks.#')
    return stages_of(len(blocks))


def stem_of(shapes: Shapes, family: str) -> Stem:
    """The sizes of timm's ``stem.proj``.

    Raises:
        ValueError: where it is no convolution with a square kernel.
    """
    shape = shapes.get('stem.proj.weight', ())
    if len(shape) != 4 or 0 in shape or shape[2] != shape[3]:
        raise UserError(
            f'no {family}: stem.proj.weight of shape {shape} is no convolution of square patches'
        )
    return Stem(dim=shape[0], channels=shape[1], patch_size=shape[2])


def matrix_of(shapes: Shapes, name: str, family: str) -> tuple[int, int]:
    """Rows and columns of a tensor.

    Raises:
        ValueError: where it is missing or no matrix.
    """
    shape = shapes.get(name, ())
    if len(shape) != 2 or 0 in shape:
        raise UserError(f'no {family}: {name} is not a matrix')
    return shape[0], shape[1]


def ratio_of(hidden: int, dim: int) -> int:
    """How many times ``dim`` channels are widened.

    Raises:
        ValueError: where ``hidden`` is no multiple of them.
    """
    if hidden % dim:
        raise UserError(f'{dim} channels are widened to {hidden}, which is no multiple')
    return hidden // dim


def grid_of(positions: int, grid: Grid | None) -> int | Grid:
    """The trained grid, one number for a square; ``grid``: where it is known.

    Raises:
        ValueError: where it is not known and ``positions`` are no square, or are not those of it.
    """
    if grid is not None:
        if math.prod(grid) != positions:
            raise UserError(f'a grid of {grid[0]} x {grid[1]} has no {positions} positions')
        return grid[0] if grid[0] == grid[1] else grid
    side = math.isqrt(positions)
    if side * side != positions:
        raise UserError(
            f'{positions} positions are no square; their height and width cannot be told from a '
            'file'
        )
    return side


def positions_of(arch: Mapping[str, Any]) -> int:
    """Positions of an arch's trained grid."""
    grid = arch['grid']
    return grid**2 if isinstance(grid, int) else math.prod(grid)


def target_of(
    backbone: str,
    archs: Mapping[str, Mapping[str, Any]],
    arch: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any],
    stem: Stem,
    block: Mapping[str, Shape],
    parts: Sequence[Part],
    norm: Sequence[Part],
    head: Shape | None,
) -> Target:
    """The model of an arch.

    Args:
        backbone: name of our backbone in the registry.
        archs: the named ones, as ``arch``.
        arch: sizes as a file tells them.
        defaults: fields that a config may leave out.
        stem: see :class:`Stem`.
        block: our names and shapes of a block.
        parts: of a block.
        norm: of the norm behind the last block.
        head: shape of the classifier's weight; None where the file has no classifier.
    """
    named = next((name for name, known in archs.items() if known == arch), None)
    config: dict[str, Any] = {'type': backbone, 'arch': named or custom_arch(arch, defaults)}
    if stem.channels != 3:
        config['in_channels'] = stem.channels
    depths = arch['depths']
    return Target(
        named or 'custom',
        config,
        _expected(depths, stem, block, head),
        rules=tuple(_rules(depths, parts, norm)),
    )


def _expected(
    depths: Sequence[int], stem: Stem, block: Mapping[str, Shape], head: Shape | None
) -> dict[str, Shape]:
    patch = stem.patch_size
    found = layer_shapes('backbone.stem.conv', stem.dim, stem.channels, patch, patch)
    for i, j in _places(depths):
        found |= {f'backbone.stages.{i}.{j}.{name}': shape for name, shape in block.items()}
    found |= layer_shapes(f'backbone.out_norms.{len(depths) - 1}', stem.dim)
    return found | (layer_shapes('head.fc', head[0], stem.dim) if head else {})


def _rules(depths: Sequence[int], parts: Sequence[Part], norm: Sequence[Part]) -> Iterator[Rule]:
    yield rename(r'stem\.proj\.(\w+)', r'backbone.stem.conv.\1')
    for k, (i, j) in enumerate(_places(depths)):
        yield from _renamed(parts, rf'blocks\.{k}\.', f'backbone.stages.{i}.{j}.')
    yield from _renamed(norm, r'norm\.', f'backbone.out_norms.{len(depths) - 1}.')
    yield rename(r'head\.(\w+)', r'head.fc.\1')


def _renamed(parts: Sequence[Part], lead: str, ours: str) -> Iterator[Rule]:
    for pattern, target, *name in parts:
        make = transform if name else rename
        yield make(lead + pattern, ours + target, *name)


def _places(depths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """(stage, block) of every published block."""
    return ((i, j) for i, depth in enumerate(depths) for j in range(depth))
