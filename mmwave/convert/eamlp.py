"""EAMLP: MenghaoGuo/EANet (``EAMLP``).

The release numbers its blocks through; ours are in two stages, so that which stage a block is in
depends on how many there are. Its table of positions is dropped: ours are computed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from mmwave.errors import UserError

from .family import Family, Release, Shapes, Target
from .rules import Rule, drop, rename
from .shapes import Shape, custom_arch, layer_shapes

UNITS = 64
"""Memory units of a block's attention."""
PATCH = 7 * 7
"""Pixels of the first soft split's patches."""


def _arch(depth: int, dim: int, heads: int, mlp_ratio: int, token_dim: int = 64) -> dict[str, Any]:
    return {
        'depths': (1, 1, depth // 2, depth - depth // 2),
        'dim': dim,
        'heads': heads,
        'mlp_ratio': mlp_ratio,
        'token_dim': token_dim,
    }


ARCHS: Mapping[str, dict[str, Any]] = {
    '7': _arch(7, dim=256, heads=4, mlp_ratio=2),
    '14': _arch(14, dim=384, heads=6, mlp_ratio=3),
    '19': _arch(19, dim=448, heads=7, mlp_ratio=3),
    '24': _arch(24, dim=512, heads=8, mlp_ratio=3),
}
"""The named archs by what a file's names and shapes tell."""

_SPLITS = ('backbone.stem', 'backbone.downsamples.0')
"""Ours of what a token attention of the release begins with: the norm and the narrowing."""
_TOKENS = 'backbone.downsamples.1'

_ATTENTION = (
    (r'attn\.linear_0', 'attention.keys'),
    (r'attn\.linear_1', 'attention.values'),
    (r'attn\.proj', 'proj'),
    ('norm2', 'norm'),
    (r'mlp\.fc1', 'mlp.fc1'),
    (r'mlp\.fc2', 'mlp.fc2'),
)

_BLOCK = (
    ('norm1', 'norm1'),
    (r'attn\.trans_dims', 'mixer.expand'),
    (r'attn\.linear_0', 'mixer.attention.keys'),
    (r'attn\.linear_1', 'mixer.attention.values'),
    (r'attn\.proj', 'mixer.proj'),
    ('norm2', 'norm2'),
    (r'mlp\.fc1', 'mlp.fc1'),
    (r'mlp\.fc2', 'mlp.fc2'),
)


def rules(depth: int) -> Iterator[Rule]:
    """Published names -> ours, for ``depth`` blocks."""
    yield drop('pos_embed', 'positions, which the model computes for the image at hand')
    for stage, split in enumerate(_SPLITS):
        published = rf'tokens_to_token\.attention{stage + 1}\.'
        yield rename(rf'{published}norm1\.(\w+)', rf'{split}.norm.\1')
        yield rename(rf'{published}attn\.q_linear\.(\w+)', rf'{split}.proj.\1')
        for theirs, ours in _ATTENTION:
            yield rename(rf'{published}{theirs}\.(\w+)', rf'backbone.stages.{stage}.0.{ours}.\1')
    yield rename(r'tokens_to_token\.project\.(\w+)', rf'{_TOKENS}.proj.\1')
    yield rename('cls_token', f'{_TOKENS}.cls_token')
    for number, block in enumerate(_blocks(depth)):
        for theirs, ours in _BLOCK:
            yield rename(rf'blocks\.{number}\.{theirs}\.(\w+)', rf'{block}.{ours}.\1')
    yield rename(r'norm\.(\w+)', r'backbone.out_norms.3.\1')
    yield rename(r'head\.(\w+)', r'head.fc.\1')


def _blocks(depth: int) -> Iterator[str]:
    """Our name of every block."""
    half = depth // 2
    for number in range(depth):
        stage, block = (2, number) if number < half else (3, number - half)
        yield f'backbone.stages.{stage}.{block}'


def recognise(shapes: Shapes) -> Target:
    """Tell the arch from the published names and shapes.

    Raises:
        ValueError: where there are fewer than two blocks, or the shapes are of no EAMLP.
    """
    depth = len({name.split('.')[1] for name in shapes if name.startswith('blocks.')})
    if depth < 2:
        raise UserError(f'an EAMLP of {depth} blocks: our two stages of blocks need one each')
    patch, token_dim = (
        _length(shapes, f'tokens_to_token.attention1.{norm}.weight') for norm in ('norm1', 'norm2')
    )
    dim = _length(shapes, 'blocks.0.norm1.weight')
    hidden = _length(shapes, 'blocks.0.mlp.fc1.bias')
    width = _length(shapes, 'blocks.0.attn.linear_1.bias')
    if patch % PATCH:
        raise UserError(f'patches of {patch} values are not of {PATCH} pixels')
    if dim % width:
        raise UserError(f'heads of {width} channels do not divide {dim} channels')
    if hidden % dim:
        raise UserError(f'an MLP widens {dim} channels to {hidden}, which is no multiple')
    arch = _arch(depth, dim, dim // width, hidden // dim, token_dim)
    named = next((name for name, known in ARCHS.items() if known == arch), None)
    backbone: dict[str, Any] = {'type': 'mmwave.EAMLP', 'arch': named or custom_arch(arch)}
    channels = patch // PATCH
    if channels != 3:
        backbone['in_channels'] = channels
    expected = _expected(arch, channels, shapes.get('head.weight'))
    return Target(named or 'custom', backbone, expected, rules=tuple(rules(depth)))


def _length(shapes: Shapes, name: str) -> int:
    """The length of a vector of the file."""
    shape = shapes.get(name, ())
    if len(shape) != 1 or not shape[0]:
        raise UserError(f'no EAMLP: {name} is {"no vector" if name in shapes else "missing"}')
    return shape[0]


def _expected(arch: Mapping[str, Any], channels: int, head: Shape | None) -> dict[str, Shape]:
    """Names and shapes of our model of ``arch`` with the last output norm."""
    found: dict[str, Shape] = {}
    dim, token_dim = arch['dim'], arch['token_dim']
    patches = (PATCH * channels, 9 * token_dim)
    for stage, (split, patch) in enumerate(zip(_SPLITS, patches, strict=True)):
        block = f'backbone.stages.{stage}.0'
        found |= layer_shapes(f'{split}.norm', patch)
        found |= layer_shapes(f'{split}.proj', token_dim, patch)
        found |= layer_shapes(f'{block}.attention.keys', 2 * token_dim, token_dim, bias=False)
        found |= layer_shapes(f'{block}.attention.values', token_dim, 2 * token_dim)
        found |= layer_shapes(f'{block}.proj', token_dim, token_dim)
        found |= layer_shapes(f'{block}.norm', token_dim)
        found |= layer_shapes(f'{block}.mlp.fc1', token_dim, token_dim)
        found |= layer_shapes(f'{block}.mlp.fc2', token_dim, token_dim)
    found |= layer_shapes(f'{_TOKENS}.proj', dim, 9 * token_dim)
    found[f'{_TOKENS}.cls_token'] = (1, 1, dim)
    width, wide, hidden = dim // arch['heads'], 4 * dim, arch['mlp_ratio'] * dim
    for block in _blocks(sum(arch['depths'][2:])):
        found |= layer_shapes(f'{block}.norm1', dim)
        found |= layer_shapes(f'{block}.mixer.expand', wide, dim)
        found |= layer_shapes(f'{block}.mixer.attention.keys', UNITS, width)
        found |= layer_shapes(f'{block}.mixer.attention.values', width, UNITS)
        found |= layer_shapes(f'{block}.mixer.proj', dim, wide)
        found |= layer_shapes(f'{block}.norm2', dim)
        found |= layer_shapes(f'{block}.mlp.fc1', hidden, dim)
        found |= layer_shapes(f'{block}.mlp.fc2', dim, hidden)
    found |= layer_shapes('backbone.out_norms.3', dim)
    return found | (layer_shapes('head.fc', head[0], dim) if head else {})


FAMILY = Family(
    name='eamlp',
    recognise=recognise,
    releases=(
        Release(
            framework='pytorch',
            origin='MenghaoGuo/EANet EAMLP',
            licence='NOASSERTION',
            marks=(
                'cls_token',
                'tokens_to_token.attention1.attn.linear_0.weight',
                'blocks.0.attn.trans_dims.weight',
                'blocks.0.attn.linear_1.weight',
            ),
        ),
    ),
)
