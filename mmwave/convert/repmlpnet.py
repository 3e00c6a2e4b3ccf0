"""RepMLPNet: DingXiaoH/RepMLP, mmpretrain, mindspore-lab/mindcv and BR-IDL/PaddleViT.

The authors' files, mmpretrain's and PaddleViT's come in two forms. That for training becomes our
train form. In that for inference, the release's deploy form, the local perceptrons and their norms
are folded into the matrices and all other norms are still there; ours folds these too.

Every batch norm of every release has an epsilon of 1e-5. The GELU of mindcv is the tanh
approximation, so the config of the backbone that its weights are for says so.
"""

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from mmwave.deploy.fuse import fuse_norm_after, fuse_norm_before, norm_affine
from mmwave.errors import UserError

from .family import Family, Release, Shapes, Target
from .rules import (
    MINDSPORE_FILLS,
    MINDSPORE_NAMES,
    PADDLE_FILLS,
    PADDLE_NAMES,
    Rule,
    drop,
    rename,
    transform,
)
from .shapes import Shape, batch_norm_shapes, custom_arch, layer_shapes

_STAGES = range(4)
_EPS = 1e-5
_DEFAULTS: dict[str, Any] = {'kernels': (1, 3), 'reduction': 4, 'mlp_ratio': 4}


def _arch(
    depths: tuple[int, ...],
    dims: tuple[int, ...],
    windows: tuple[int, ...],
    share_sets: tuple[int, ...],
) -> dict[str, Any]:
    """Sizes as a file tells them; ``windows`` are the sides of squares."""
    sizes = {'depths': depths, 'dims': dims, 'windows': windows, 'share_sets': share_sets}
    return _DEFAULTS | sizes


_224, _256 = (56, 28, 14, 7), (64, 32, 16, 8)
_T, _B = (64, 128, 256, 512), (96, 192, 384, 768)

ARCHS: Mapping[str, dict[str, Any]] = {
    't224': _arch((2, 2, 6, 2), _T, _224, (1, 4, 16, 128)),
    't256': _arch((2, 2, 6, 2), _T, _256, (1, 4, 16, 128)),
    'b224': _arch((2, 2, 12, 2), _B, _224, (1, 4, 32, 128)),
    'b256': _arch((2, 2, 12, 2), _B, _256, (1, 4, 32, 128)),
    'd256': _arch((2, 2, 18, 2), (80, 160, 320, 640), _256, (1, 4, 16, 128)),
    'l256': _arch((2, 2, 18, 2), _B, _256, (1, 4, 32, 256)),
}
"""The named archs by what a file's names and shapes tell."""

_BLOCK = (
    (rename, r'prebn([12])\.(\w+)', r'norm\3.\4'),
    (transform, r'repmlp_block\.gp\.fc([12])\.weight', r'global_perceptron.fc\3.weight', 'flatten'),
    (rename, r'repmlp_block\.gp\.fc([12])\.bias', r'global_perceptron.fc\3.bias'),
    (
        transform,
        r'repmlp_block\.fc3\.weight',
        'channel_perceptron.weight',
        'group matrices',
    ),
    (rename, r'repmlp_block\.fc3\.bias', 'channel_perceptron.bias'),
    (rename, r'repmlp_block\.fc3_bn\.(\w+)', r'channel_perceptron.norm.\3'),
    (rename, r'repmlp_block\.repconv(\d+)\.conv\.(\w+)', r'local_perceptron.\3.conv.\4'),
    (rename, r'repmlp_block\.repconv(\d+)\.bn\.(\w+)', r'local_perceptron.\3.norm.\4'),
    (rename, r'ffn_block\.ffn_fc([12])\.conv\.(\w+)', r'ffn.fc\3.\4'),
    (rename, r'ffn_block\.ffn_fc([12])\.bn\.(\w+)', r'ffn.norm\3.\4'),
)

RULES: tuple[Rule, ...] = (
    rename(r'conv_embedding\.conv\.(\w+)', r'backbone.stem.conv.\1'),
    rename(r'conv_embedding\.bn\.(\w+)', r'backbone.stem.norm.\1'),
    rename(r'embeds\.([0-2])\.conv\.(\w+)', r'backbone.downsamples.\1.conv.\2'),
    rename(r'embeds\.([0-2])\.bn\.(\w+)', r'backbone.downsamples.\1.norm.\2'),
    *(
        make(rf'stages\.([0-3])\.(\d+)\.{published}', rf'backbone.stages.\1.\2.{ours}', *name)
        for make, published, ours, *name in _BLOCK
    ),
    rename(r'head_norm\.(\w+)', r'backbone.out_norms.3.\1'),
    rename(r'head\.(\w+)', r'head.fc.\1'),
)

_MMPRETRAIN_NAMES = (
    rename(r'backbone\.patch_embed\.projection\.(\w+)', r'conv_embedding.conv.\1'),
    rename(r'backbone\.patch_embed\.norm\.(\w+)', r'conv_embedding.bn.\1'),
    rename(r'backbone\.downsample_layers\.(\d+\.(?:conv|bn)\.\w+)', r'embeds.\1'),
    rename(r'backbone\.(stages\.\d+\.\d+)\.norm([12]\.\w+)', r'\1.prebn\2'),
    rename(r'backbone\.(stages\..+\.gp)\.conv([12])\.conv\.(\w+)', r'\1.fc\2.\3'),
    rename(r'backbone\.(stages\..+)', r'\1'),
    rename(r'backbone\.final_norm\.(\w+)', r'head_norm.\1'),
    rename(r'head\.fc\.(\w+)', r'head.\1'),
)

_MINDCV_NAMES = (
    drop(r'conv2d\.weight', 'a layer that the network has and never uses'),
    rename(r'(conv_embedding|embeds\.\d+)\.conv\.((?:conv|bn)\.\w+)', r'\1.\2'),
    rename(r'(.*)', r'\1'),
)

_PADDLEVIT_NAMES = (
    transform(r'head\.weight', 'head.weight', 'transpose'),
    rename(r'(.*)', r'\1'),
)


def recognise(shapes: Shapes) -> Target:
    """Tell the arch and the form from the published (torch) names and shapes.

    Raises:
        ValueError: where a stage is missing, or its shapes are of no RepMLPNet that we build.
    """
    stages = [_stage(shapes, i) for i in _STAGES]
    sizes: dict[str, Any] = {key: tuple(stage[key] for stage in stages) for key in stages[0]}
    for key in ('reduction', 'mlp_ratio'):
        if len(set(sizes[key])) > 1:
            raise UserError(f'stages with {key} {sizes[key]}: it must be alike in all of them')
        sizes[key] = sizes[key][0]
    deploy = 'stages.0.0.repmlp_block.fc3.bias' in shapes
    if not deploy:  # of the kernels a deploy file keeps no trace
        sizes['kernels'] = _kernels(shapes)
    arch = _DEFAULTS | sizes
    named = next((name for name, known in ARCHS.items() if known == arch), None)
    backbone: dict[str, Any] = {
        'type': 'mmwave.RepMLPNet',
        'arch': named or custom_arch(arch, _DEFAULTS),
    }
    channels = _convolution(shapes, 'conv_embedding.conv.weight')[1]
    if channels != 3:
        backbone['in_channels'] = channels
    expected = _expected(arch, channels, deploy, shapes.get('head.weight'))
    if not deploy:
        return Target(named or 'custom', backbone, expected)
    return Target(
        named or 'custom',
        {**backbone, 'deploy': True},
        expected,
        fold=partial(_folded, arch['depths']),
    )


def _stage(shapes: Shapes, stage: int) -> dict[str, int]:
    """The sizes of a stage, by its first block."""
    lead = f'stages.{stage}.'
    block = f'{lead}0.repmlp_block'
    rows, positions = _convolution(shapes, f'{block}.fc3.weight')
    squeezed, dim = _convolution(shapes, f'{block}.gp.fc1.weight')
    hidden, _ = _convolution(shapes, f'{lead}0.ffn_block.ffn_fc1.conv.weight')
    for whole, part, what in (
        (rows, positions, 'rows in fc3, which are no multiple of its columns,'),
        (dim, squeezed, 'channels, which are no multiple of what gp.fc1 squeezes them to,'),
        (hidden, dim, 'hidden channels, which are no multiple of its channels,'),
    ):
        if whole % part:
            raise UserError(f'stage {stage} has {whole} {what} {part}')
    side = math.isqrt(positions)
    if side * side != positions:
        raise UserError(
            f'stage {stage} has windows of {positions} positions, which are no square; their '
            'height and width cannot be told from a file'
        )
    return {
        'depths': len({name.split('.')[2] for name in shapes if name.startswith(lead)}),
        'dims': dim,
        'windows': side,
        'share_sets': rows // positions,
        'reduction': dim // squeezed,
        'mlp_ratio': hidden // dim,
    }


def _convolution(shapes: Shapes, name: str) -> tuple[int, int]:
    """Outputs and inputs of a convolution's kernel."""
    shape = shapes.get(name, ())
    if len(shape) != 4 or 0 in shape:
        raise UserError(f'no RepMLPNet of {len(_STAGES)} stages: {name} is not a convolution')
    return shape[0], shape[1]


def _kernels(shapes: Shapes) -> tuple[int, ...]:
    pattern = re.compile(r'stages\.0\.0\.repmlp_block\.repconv(\d+)\.conv\.weight')
    return tuple(sorted(int(found[1]) for found in map(pattern.fullmatch, shapes) if found))


def _expected(
    arch: Mapping[str, Any], channels: int, deploy: bool, head: Shape | None
) -> dict[str, Shape]:
    """Our train form's names and shapes; of a deploy file, with what it has in place of norms."""
    found: dict[str, Shape] = {}
    widths = (channels, *arch['dims'])
    for stage, dim in enumerate(arch['dims']):
        part, side = (f'downsamples.{stage - 1}', 2) if stage else ('stem', 4)
        conv = (dim, widths[stage], side, side)
        found |= layer_shapes(f'backbone.{part}.conv', *conv, bias=False)
        found |= batch_norm_shapes(f'backbone.{part}.norm', dim)
        for block in range(arch['depths'][stage]):
            found |= _block(f'backbone.stages.{stage}.{block}', arch, stage, deploy)
    found |= batch_norm_shapes('backbone.out_norms.3', widths[-1])
    return found | (layer_shapes('head.fc', head[0], widths[-1]) if head else {})


def _block(name: str, arch: Mapping[str, Any], stage: int, deploy: bool) -> dict[str, Shape]:
    dim, sets, positions = (
        arch['dims'][stage],
        arch['share_sets'][stage],
        arch['windows'][stage] ** 2,
    )
    squeezed, hidden = dim // arch['reduction'], dim * arch['mlp_ratio']
    channel = f'{name}.channel_perceptron'
    found = {
        **batch_norm_shapes(f'{name}.norm1', dim),
        **batch_norm_shapes(f'{name}.norm2', dim),
        **layer_shapes(f'{name}.global_perceptron.fc1', squeezed, dim),
        **layer_shapes(f'{name}.global_perceptron.fc2', dim, squeezed),
        f'{channel}.weight': (sets, positions, positions),
    }
    if deploy:
        found[f'{channel}.bias'] = (sets * positions,)
    else:
        found |= batch_norm_shapes(f'{channel}.norm', sets)
        for k in arch['kernels']:
            local = f'{name}.local_perceptron.{k}'
            found |= layer_shapes(f'{local}.conv', sets, 1, k, k, bias=False)
            found |= batch_norm_shapes(f'{local}.norm', sets)
    for part, rows, columns in (('1', hidden, dim), ('2', dim, hidden)):
        found |= layer_shapes(f'{name}.ffn.fc{part}', rows, columns, 1, 1, bias=False)
        found |= batch_norm_shapes(f'{name}.ffn.norm{part}', rows)
    return found


_KEPT = re.compile(
    r'head\..*|.*\.(?:(?:global_perceptron|out_norms)\..*|channel_perceptron\.weight)'
)


def _folded(depths: Sequence[int], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our deploy form of a release's, whose names and shapes are those of :func:`_expected`."""
    done = {name: tensor for name, tensor in tensors.items() if _KEPT.fullmatch(name)}
    for part in ('stem', *(f'downsamples.{stage}' for stage in _STAGES[:-1])):
        done |= _fused(tensors, f'backbone.{part}.conv', f'backbone.{part}.norm')
    blocks = [f'backbone.stages.{i}.{j}' for i, depth in enumerate(depths) for j in range(depth)]
    for block in blocks:
        first = f'{block}.norm1'
        for leaf, tensor in zip(('weight', 'bias'), _affine(tensors, first), strict=True):
            done[f'{first}.{leaf}'] = tensor.to(tensors[f'{first}.weight'])
        channel = f'{block}.channel_perceptron'
        done[f'{channel}.bias'] = tensors[f'{channel}.bias'].reshape(
            tensors[f'{channel}.weight'].shape[:2]
        )
        done |= _fused(tensors, f'{block}.ffn.fc1', f'{block}.ffn.norm1', before=f'{block}.norm2')
        done |= _fused(tensors, f'{block}.ffn.fc2', f'{block}.ffn.norm2')
    return done


def _affine(tensors: Mapping[str, Tensor], norm: str) -> tuple[Tensor, Tensor]:
    """Scale and shift of a norm, in float64: what they are folded into is then rounded once."""
    weight, bias, mean, var = (
        tensors[f'{norm}.{leaf}'].double()
        for leaf in ('weight', 'bias', 'running_mean', 'running_var')
    )
    return norm_affine(weight, bias, mean, var, _EPS)


def _fused(
    tensors: Mapping[str, Tensor], layer: str, norm: str, before: str = ''
) -> dict[str, Tensor]:
    """Weight and bias of a layer with the norms behind and, where named, in front of it."""
    published = tensors[f'{layer}.weight']
    weight, bias = fuse_norm_after(published.double(), None, *_affine(tensors, norm))
    if before:
        weight, bias = fuse_norm_before(weight, bias, *_affine(tensors, before))
    return {f'{layer}.weight': weight.to(published), f'{layer}.bias': bias.to(published)}


_MARKS = (
    'conv_embedding.conv.weight',
    'stages.0.0.repmlp_block.fc3.weight',
    'stages.0.0.ffn_block.ffn_fc1.conv.weight',
)

FAMILY = Family(
    name='repmlpnet',
    rules=RULES,
    recognise=recognise,
    releases=(
        Release(
            framework='pytorch',
            origin='DingXiaoH/RepMLP',
            licence='MIT',
            marks=_MARKS,
        ),
        Release(
            framework='pytorch',
            origin='open-mmlab/mmpretrain configs/repmlp',
            licence='Apache-2.0',
            marks=(
                'backbone.patch_embed.projection.weight',
                'backbone.stages.0.0.repmlp_block.fc3.weight',
            ),
            names=(_MMPRETRAIN_NAMES,),
        ),
        Release(
            framework='mindspore',
            origin='mindspore-lab/mindcv mindcv/models/repmlp.py',
            licence='Apache-2.0',
            marks=(
                'conv_embedding.conv.conv.weight',
                'stages.0.0.repmlp_block.fc3.weight',
            ),
            names=(MINDSPORE_NAMES, _MINDCV_NAMES),
            fills=MINDSPORE_FILLS,
            settings={'act_cfg': {'type': 'GELU', 'approximate': 'tanh'}},
        ),
        Release(
            framework='paddle',
            origin='BR-IDL/PaddleViT image_classification/RepMLP',
            licence='Apache-2.0',
            marks=_MARKS,
            names=(PADDLE_NAMES, _PADDLEVIT_NAMES),
            fills=PADDLE_FILLS,
        ),
    ),
)
