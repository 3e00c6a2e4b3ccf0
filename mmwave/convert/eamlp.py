"""EAMLP: MenghaoGuo/EANet (``EAMLP``).

The release numbers its blocks through; ours are in two stages, so the stage of a block depends on
the depth. The file's table of positions is dropped: ours are computed.
"""

from collections.abc import Iterator

from mmwave.errors import UserError
from mmwave.models import EAMLP

from .family import Family, Recognised, Release, Shapes
from .rules import Rule, drop, rename
from .sizes import blocks_of, classes_of, ratio_of, shape_of

_NAME = 'EAMLP'
_PATCH = 7 * 7  # pixels of the first soft split's patches

_SPLITS = ('backbone.stem', 'backbone.downsamples.0')
"""Our parts with what a token attention of the release begins with: norm and projection."""
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


def _rules(depth: int) -> Iterator[Rule]:
    """Yield the rules, published names -> ours, of ``depth`` blocks."""
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
    """Yield our name of every block."""
    half = depth // 2
    for number in range(depth):
        stage, block = (2, number) if number < half else (3, number - half)
        yield f'backbone.stages.{stage}.{block}'


def recognise(shapes: Shapes) -> Recognised:
    """Return the EAMLP that the published names and shapes describe."""
    depth = blocks_of(shapes, 'blocks.')
    if depth < 2:
        raise UserError(f'an EAMLP of {depth} blocks: our two stages of blocks need one each')
    patch, token_dim, dim, hidden, width = (
        shape_of(shapes, name, 1, _NAME)[0]
        for name in (
            'tokens_to_token.attention1.norm1.weight',
            'tokens_to_token.attention1.norm2.weight',
            'blocks.0.norm1.weight',
            'blocks.0.mlp.fc1.bias',
            'blocks.0.attn.linear_1.bias',
        )
    )
    return Recognised(
        arch={
            'depths': (1, 1, depth // 2, depth - depth // 2),
            'dim': dim,
            'heads': ratio_of(dim, width, 'channels of an EAMLP and of its heads'),
            'mlp_ratio': ratio_of(hidden, dim, 'hidden channels of an EAMLP'),
            'token_dim': token_dim,
        },
        in_channels=ratio_of(patch, _PATCH, 'numbers and pixels of a patch of an EAMLP'),
        classes=classes_of(shapes),
        rules=tuple(_rules(depth)),
    )


FAMILY = Family(
    name='eamlp',
    backbone=EAMLP,
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
