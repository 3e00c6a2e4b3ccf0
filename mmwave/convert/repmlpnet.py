"""RepMLPNet: DingXiaoH/RepMLP, mmpretrain, mindspore-lab/mindcv and BR-IDL/PaddleViT.

The authors' files, mmpretrain's and PaddleViT's come in two forms. The training form becomes our
train form. The release's deploy form has the local perceptrons and their norms folded into the
matrices and keeps all other norms; ours folds these too.

Every batch norm of every release has an epsilon of 1e-5. The GELU of mindcv is the tanh
approximation, so the converter writes ``act_cfg`` for its weights.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from mmwave.deploy.fuse import fuse_norm_after, fuse_norm_before, norm_affine
from mmwave.errors import UserError
from mmwave.models import RepMLPNet

from .family import Family, Fold, Recognised, Release, Shapes
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
from .sizes import blocks_of, classes_of, ratio_of, shape_of, side_of

_NAME = 'RepMLPNet'
_STAGES = range(4)
_EPS = 1e-5
_MAX_KERNELS = 8  # each is a convolution in every block of the model that is built

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


def recognise(shapes: Shapes) -> Recognised:
    """Return the RepMLPNet that the published (torch) names and shapes describe."""
    stages = [_stage(shapes, i) for i in _STAGES]
    arch: dict[str, Any] = {key: tuple(stage[key] for stage in stages) for key in stages[0]}
    for key in ('reduction', 'mlp_ratio'):
        if len(set(arch[key])) > 1:
            raise UserError(f'stages with {key} {arch[key]}: expected one for all of them')
        arch[key] = arch[key][0]
    deploy = 'stages.0.0.repmlp_block.fc3.bias' in shapes
    if not deploy:  # a deploy file holds no kernels
        arch['kernels'] = _kernels(shapes)
    _, channels, *_ = shape_of(shapes, 'conv_embedding.conv.weight', 4, _NAME)
    return Recognised(
        arch=arch,
        in_channels=channels,
        classes=classes_of(shapes),
        fold=Fold(_deploy_shapes, _folded) if deploy else None,
    )


def _stage(shapes: Shapes, stage: int) -> dict[str, int]:
    """Return the sizes of a stage, read from its first block."""
    lead = f'stages.{stage}.'
    block = f'{lead}0.repmlp_block'
    rows, positions, *_ = shape_of(shapes, f'{block}.fc3.weight', 4, _NAME)
    squeezed, dim, *_ = shape_of(shapes, f'{block}.gp.fc1.weight', 4, _NAME)
    hidden, *_ = shape_of(shapes, f'{lead}0.ffn_block.ffn_fc1.conv.weight', 4, _NAME)
    return {
        'depths': blocks_of(shapes, lead),
        'dims': dim,
        'windows': side_of(positions, f'windows of stage {stage}'),
        'share_sets': ratio_of(rows, positions, f'rows and columns of fc3 of stage {stage}'),
        'reduction': ratio_of(dim, squeezed, f'channels and outputs of gp.fc1 of stage {stage}'),
        'mlp_ratio': ratio_of(hidden, dim, f'hidden channels of stage {stage}'),
    }


def _kernels(shapes: Shapes) -> tuple[int, ...]:
    """Return the sides of the local perceptron's kernels."""
    pattern = re.compile(r'stages\.0\.0\.repmlp_block\.repconv(\d{1,9})\.conv\.weight')
    found = {int(match[1]) for match in map(pattern.fullmatch, shapes) if match}
    if len(found) > _MAX_KERNELS:
        raise UserError(f'{len(found)} kernels in a block: expected {_MAX_KERNELS} at most')
    return tuple(sorted(found))


# -- The release's deploy form --------------------------------------------------------------------

_FOLDED = re.compile(r'.*\.(?:local_perceptron|channel_perceptron\.norm)\..*')
_KEPT = re.compile(
    r'head\..*|.*\.(?:(?:global_perceptron|out_norms)\..*|channel_perceptron\.weight)'
)
_EMBEDDING = re.compile(r'(backbone\.(?:stem|downsamples\.\d+))\.conv\.weight')
_CHANNELS = re.compile(r'(backbone\.stages\.\d+\.\d+)\.channel_perceptron\.weight')


def _deploy_shapes(train: Shapes) -> dict[str, tuple[int, ...]]:
    """Return the names and shapes of the release's deploy form, under our names."""
    found = {name: shape for name, shape in train.items() if not _FOLDED.fullmatch(name)}
    for block in _matches(_CHANNELS, train):
        sets, positions, _ = train[f'{block}.channel_perceptron.weight']
        found[f'{block}.channel_perceptron.bias'] = (sets * positions,)
    return found


def _folded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Fold the release's deploy form, under our names, into ours."""
    done = {name: tensor for name, tensor in tensors.items() if _KEPT.fullmatch(name)}
    for part in _matches(_EMBEDDING, tensors):
        done |= _fused(tensors, f'{part}.conv', f'{part}.norm')
    for block in _matches(_CHANNELS, tensors):
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


def _matches(pattern: re.Pattern[str], names: Iterable[str]) -> list[str]:
    """Return the first group of every name that matches."""
    return [match[1] for match in map(pattern.fullmatch, names) if match]


def _affine(tensors: Mapping[str, Tensor], norm: str) -> tuple[Tensor, Tensor]:
    """Return scale and shift of a norm, in float64: folded weights are then rounded once."""
    weight, bias, mean, var = (
        tensors[f'{norm}.{leaf}'].double()
        for leaf in ('weight', 'bias', 'running_mean', 'running_var')
    )
    return norm_affine(weight, bias, mean, var, _EPS)


def _fused(
    tensors: Mapping[str, Tensor], layer: str, norm: str, before: str = ''
) -> dict[str, Tensor]:
    """Fold into a layer the norm after it and, where named, the norm before it."""
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
    backbone=RepMLPNet,
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
