"""What the files of gMLP, ResMLP and MLP-Mixer share: blocks of one width, numbered through.

The rules of the three are for timm's names. Every release numbers its blocks from first to last;
ours are split into the stages whose maps the backbone outputs, so the rules depend on the depth.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmwave.errors import UserError
from mmwave.models.backbones.grid import four_stages

from .family import Recognised, Shapes
from .rules import Rule, rename, transform
from .sizes import blocks_of, classes_of, shape_of

Part = tuple[str, str] | tuple[str, str, str]
"""Pattern of a tensor's name in timm's block, our name in our block, and a transform if needed.

Both may use groups; the pattern's are numbered from 1.
"""

TIMM = 'huggingface/pytorch-image-models timm/models/mlp_mixer.py'

NORM: tuple[Part, ...] = ((r'(weight|bias)', r'\1'),)
"""timm's layer norms, which have our names."""

AFFINE = (('alpha', 'weight', 'vector'), ('beta', 'bias', 'vector'))
"""timm's norm of ResMLP, of shape (1, 1, C) there and (C) elsewhere."""

PADDLEVIT_NAMES = (
    rename(r'patch_embed\.patch_embed\.(\w+)', r'stem.proj.\1'),
    # Paddle stores the weights of linear layers as (in, out), square ones too.
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
    """Sizes of the first convolution.

    Attributes:
        dim: channels of the map.
        channels: channels of the images.
        patch_size: pixels per position.
    """

    dim: int
    channels: int
    patch_size: int


def stem_of(shapes: Shapes, family: str) -> Stem:
    """Return the sizes of timm's ``stem.proj``.

    Raises:
        UserError: where it is no convolution with a square kernel.
    """
    dim, channels, height, width = shape_of(shapes, 'stem.proj.weight', 4, family)
    if height != width:
        raise UserError(f'no {family}: patches of {height} x {width} pixels are no squares')
    return Stem(dim, channels, patch_size=height)


def recognised(
    shapes: Shapes,
    family: str,
    arch: Mapping[str, Any],
    *,
    stem: Stem,
    positions: int,
    parts: Sequence[Part],
    norm: Sequence[Part],
) -> Recognised:
    """Return the backbone that a file of timm's names describes.

    Args:
        shapes: of the file.
        family: name of the family in messages.
        arch: fields of the arch besides those that the three families share.
        stem: see :class:`Stem`.
        positions: of the trained map.
        parts: of a block.
        norm: of the norm after the last block.

    Raises:
        UserError: where there are no blocks, or too many.
    """
    depth = blocks_of(shapes, 'blocks.')
    if not depth:
        raise UserError(f'no {family}: no tensor is called blocks.#')
    depths = four_stages(depth)
    return Recognised(
        arch={'depths': depths, 'dim': stem.dim, **arch, 'patch_size': stem.patch_size},
        in_channels=stem.channels,
        classes=classes_of(shapes),
        positions=positions,
        rules=tuple(_rules(depths, parts, norm)),
    )


def _rules(depths: Sequence[int], parts: Sequence[Part], norm: Sequence[Part]) -> Iterator[Rule]:
    yield rename(r'stem\.proj\.(\w+)', r'backbone.stem.conv.\1')
    places = ((i, j) for i, depth in enumerate(depths) for j in range(depth))
    for k, (i, j) in enumerate(places):
        yield from _renamed(parts, rf'blocks\.{k}\.', f'backbone.stages.{i}.{j}.')
    yield from _renamed(norm, r'norm\.', f'backbone.out_norms.{len(depths) - 1}.')
    yield rename(r'head\.(\w+)', r'head.fc.\1')


def _renamed(parts: Sequence[Part], lead: str, ours: str) -> Iterator[Rule]:
    for pattern, target, *name in parts:
        make = transform if name else rename
        yield make(lead + pattern, ours + target, *name)
