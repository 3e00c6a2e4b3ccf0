"""Write published files: their names and shapes, and the containers of other frameworks."""

import math
import pickle
import re
import zlib
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

TINY = {'depths': (1, 1, 1, 1), 'dims': (8, 12, 16, 20), 'mlp_ratios': (4, 4, 4, 4)}
Named = tuple[str, tuple[int, ...]]


def wavemlp(
    *,
    depths: Iterable[int],
    dims: Iterable[int],
    mlp_ratios: Iterable[int] = (4, 4, 4, 4),
    phase: str = 'fc',
    norm: str = 'BN',
    stem_norm: bool = True,
    classes: int | None = 16,
) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the PyTorch release, of its dense form for ``classes=None``."""
    return dict(_wavemlp(tuple(depths), tuple(dims), mlp_ratios, phase, norm, stem_norm, classes))


def _wavemlp(
    depths: tuple[int, ...],
    dims: tuple[int, ...],
    ratios: Iterable[int],
    phase: str,
    kind: str,
    stem_norm: bool,
    classes: int | None,
) -> Iterator[Named]:
    def norm(name: str, c: int, kind: str = kind) -> Iterator[Named]:
        leaves = ('weight', 'bias', 'running_mean', 'running_var')
        yield from ((f'{name}.{leaf}', (c,)) for leaf in leaves[: 4 if kind == 'BN' else 2])
        if kind == 'BN':
            yield f'{name}.num_batches_tracked', ()

    def conv(name: str, *shape: int, bias: bool = True) -> Iterator[Named]:
        yield f'{name}.weight', shape
        if bias:
            yield f'{name}.bias', shape[:1]

    for stage, (depth, c, ratio) in enumerate(zip(depths, dims, ratios, strict=True)):
        lead = f'network.{2 * stage - 1}' if stage else 'patch_embed'
        yield from conv(f'{lead}.proj', c, *((dims[stage - 1], 3, 3) if stage else (3, 7, 7)))
        if stem_norm:
            yield from norm(f'{lead}.norm', c)
        for block in (f'network.{2 * stage}.{j}' for j in range(depth)):
            yield from norm(f'{block}.norm1', c)
            for part in ('fc_h', 'fc_w', 'fc_c'):
                yield from conv(f'{block}.attn.{part}', c, c, 1, 1, bias=False)
            yield from conv(f'{block}.attn.tfc_h', c, 2, 1, 7, bias=False)
            yield from conv(f'{block}.attn.tfc_w', c, 2, 7, 1, bias=False)
            yield from conv(f'{block}.attn.reweight.fc1', c // 4, c, 1, 1)
            yield from conv(f'{block}.attn.reweight.fc2', 3 * c, c // 4, 1, 1)
            yield from conv(f'{block}.attn.proj', c, c, 1, 1)
            for part in ('theta_h_conv', 'theta_w_conv'):
                shape = (c, 1, 3, 3) if phase == 'dw' else (c, c, 1, 1)
                yield from conv(f'{block}.attn.{part}.0', *shape, bias=phase == 'fc')
                yield from norm(f'{block}.attn.{part}.1', c, 'BN')
            yield from norm(f'{block}.norm2', c)
            yield from conv(f'{block}.mlp.fc1', ratio * c, c, 1, 1)
            yield from conv(f'{block}.mlp.fc2', c, ratio * c, 1, 1)
        if classes is None:
            yield from norm(f'norm{2 * stage}', c)
    if classes is not None:
        yield from norm('norm', dims[-1])
        yield from conv('head', classes, dims[-1])


REPMLPNET_TINY = {
    'depths': (1, 2, 1, 1),
    'dims': (8, 12, 16, 24),
    'windows': (8, 4, 2, 1),
    'share_sets': (1, 2, 4, 8),
}


def repmlpnet(
    *,
    depths: Iterable[int],
    dims: Iterable[int],
    windows: Iterable[Any],
    share_sets: Iterable[int],
    kernels: Iterable[int] = (1, 3),
    reduction: int = 4,
    mlp_ratio: int = 4,
    deploy: bool = False,
    classes: int | None = 16,
) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of the authors' RepMLPNet, in training or deploy form."""
    found: dict[str, tuple[int, ...]] = {}

    def conv(name: str, *shape: int, bias: bool = False) -> None:
        found[f'{name}.weight'] = shape
        if bias:
            found[f'{name}.bias'] = shape[:1]

    def norm(name: str, c: int) -> None:
        found.update({f'{name}.{x}': (c,) for x in ('weight', 'bias')})
        found.update({f'{name}.{x}': (c,) for x in ('running_mean', 'running_var')})
        found[f'{name}.num_batches_tracked'] = ()

    width = 3
    for i, (depth, c, window, s) in enumerate(zip(depths, dims, windows, share_sets, strict=True)):
        embed = f'embeds.{i - 1}' if i else 'conv_embedding'
        conv(f'{embed}.conv', c, width, *((2, 2) if i else (4, 4)))
        norm(f'{embed}.bn', c)
        positions = window * window if isinstance(window, int) else math.prod(window)
        for block in (f'stages.{i}.{j}' for j in range(depth)):
            mixer, ffn = f'{block}.repmlp_block', f'{block}.ffn_block'
            conv(f'{mixer}.gp.fc1', c // reduction, c, 1, 1, bias=True)
            conv(f'{mixer}.gp.fc2', c, c // reduction, 1, 1, bias=True)
            conv(f'{mixer}.fc3', s * positions, positions, 1, 1, bias=deploy)
            if not deploy:
                norm(f'{mixer}.fc3_bn', s)
                for k in kernels:
                    conv(f'{mixer}.repconv{k}.conv', s, 1, k, k)
                    norm(f'{mixer}.repconv{k}.bn', s)
            conv(f'{ffn}.ffn_fc1.conv', mlp_ratio * c, c, 1, 1)
            norm(f'{ffn}.ffn_fc1.bn', mlp_ratio * c)
            conv(f'{ffn}.ffn_fc2.conv', c, mlp_ratio * c, 1, 1)
            norm(f'{ffn}.ffn_fc2.bn', c)
            norm(f'{block}.prebn1', c)
            norm(f'{block}.prebn2', c)
        width = c
    norm('head_norm', width)
    if classes is not None:
        conv('head', classes, width, bias=True)
    return found


def mindcv_name(name: str) -> str:
    """Return mindcv's name of a part of RepMLPNet: the embeddings are one level deeper."""
    return re.sub(r'^(conv_embedding|embeds\.\d+)\.', r'\1.conv.', name)


def mmpretrain_name(name: str) -> str:
    """Return mmpretrain's name of a part of RepMLPNet."""
    for pattern, theirs in (
        (r'^conv_embedding\.conv', 'backbone.patch_embed.projection'),
        (r'^conv_embedding\.bn', 'backbone.patch_embed.norm'),
        (r'^embeds', 'backbone.downsample_layers'),
        (r'^stages', 'backbone.stages'),
        (r'\.prebn', '.norm'),
        (r'\.gp\.fc(\d)', r'.gp.conv\1.conv'),
        (r'^head_norm', 'backbone.final_norm'),
        (r'^head\.', 'head.fc.'),
    ):
        name = re.sub(pattern, theirs, name)
    return name


MINDSPORE_LEAVES = {
    'running_mean': 'moving_mean',
    'running_var': 'moving_variance',
    'weight': 'gamma',
    'bias': 'beta',
}


def mindspore_names(names: Iterable[str]) -> dict[str, str]:
    """Return PyTorch name -> MindSpore's, without batch counters, which it lacks."""
    names = list(names)
    norms = {n.rpartition('.')[0] for n in names if 'norm' in n or '_conv.1.' in n}
    norms |= {n.rpartition('.')[0] for n in names if n.endswith('.running_mean')}
    found = {}
    for name in names:
        module, _, leaf = name.rpartition('.')
        if leaf != 'num_batches_tracked':
            found[name] = f'{module}.{MINDSPORE_LEAVES[leaf]}' if module in norms else name
    return found


def write_mindspore(
    path: Path, entries: Iterable[tuple[str, str, Iterable[int], bytes]], crc: bool = False
) -> None:
    """Write (tag, type, dims, content) entries as MindSpore's protocol buffer."""
    message = b''
    for tag, dtype, dims, content in entries:
        tensor = b''.join(b'\x08' + _varint(d) for d in dims)
        tensor += _bytes(2, dtype.encode()) + _bytes(3, content)
        message += _bytes(1, _bytes(1, tag.encode()) + _bytes(2, tensor))
    if crc:
        message += b'crc_num' + zlib.crc32(message).to_bytes(10, 'big')
    path.write_bytes(message)


def _bytes(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    septets = [value >> shift & 0x7F for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([s | 0x80 for s in septets[:-1]] + septets[-1:])


def mindspore_entry(tag: str, tensor: Any) -> tuple[str, str, tuple[int, ...], bytes]:
    """Return a float32 tensor as an entry of :func:`write_mindspore`."""
    content = tensor.numpy().tobytes()
    assert len(content) == 4 * math.prod(tensor.shape)
    return tag, 'Float32', tuple(tensor.shape), content


class _Pair:
    """A tensor in a checkpoint of Paddle: Paddle's own name, and the array."""

    def __init__(self, name: str, array: Any) -> None:
        self.entry = (name, array)

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, (self.entry,)


PADDLE_TABLE = 'StructuredToParameterName@@'


def paddle_names(names: Iterable[str]) -> dict[str, str]:
    """Return PyTorch name -> Paddle's, without batch counters, which it lacks."""
    leaves = {'running_mean': '_mean', 'running_var': '_variance'}
    found = {}
    for name in names:
        module, _, leaf = name.rpartition('.')
        if leaf != 'num_batches_tracked':
            found[name] = f'{module}.{leaves.get(leaf, leaf)}'
    return found


def write_paddle(path: Path, tensors: Mapping[str, Any], protocol: int = 4) -> None:
    """Write named tensors as Paddle saves a network."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    table = {name: f'param_{i}' for i, name in enumerate(arrays)}
    path.write_bytes(pickle.dumps({**arrays, PADDLE_TABLE: table}, protocol=protocol))


def write_paddle_training(path: Path, **entries: Any) -> None:
    """Write a training checkpoint of Paddle's, whose tensors have Paddle's own names as well."""
    content = {
        key: OrderedDict((k, _Pair(f'linear_{i}.w_0', t.numpy())) for i, (k, t) in enumerate(e))
        for key, e in ((key, entry.items()) for key, entry in entries.items())
    }
    rest = {'epoch': 3, 'optimizer': {'LR_Scheduler': {'last_lr': 0.1}}, 'lr_scheduler': None}
    path.write_bytes(pickle.dumps({**content, **rest}, protocol=4))


# -- gMLP, ResMLP and MLP-Mixer, Vision Permutator ------------------------------------------------

Shapes = dict[str, tuple[int, ...]]


def _linear(name: str, rows: int, columns: int) -> Shapes:
    return {f'{name}.weight': (rows, columns), f'{name}.bias': (rows,)}


def _norm(name: str, dim: int) -> Shapes:
    return {f'{name}.weight': (dim,), f'{name}.bias': (dim,)}


def _affine(name: str, dim: int) -> Shapes:
    return {f'{name}.alpha': (1, 1, dim), f'{name}.beta': (1, 1, dim)}


def _plain(
    depth: int, dim: int, patch_size: int, channels: int, classes: int | None, norm: Any, block: Any
) -> Shapes:
    """Return names and shapes of timm's models of one stride; ``block``: number -> a block's."""
    found = {'stem.proj.weight': (dim, channels, patch_size, patch_size), 'stem.proj.bias': (dim,)}
    for k in range(depth):
        found |= block(f'blocks.{k}')
    found |= norm('norm', dim)
    return found | (_linear('head', classes, dim) if classes else {})


def gmlp(
    *,
    depth: int,
    dim: int,
    mlp_ratio: int = 6,
    patch_size: int = 16,
    grid: int = 14,
    channels: int = 3,
    classes: int | None = 16,
) -> Shapes:
    """Return names and shapes of timm's gMLP."""
    hidden, positions = mlp_ratio * dim, grid**2

    def block(name: str) -> Shapes:
        mlp = f'{name}.mlp_channels'
        return {
            **_norm(f'{name}.norm', dim),
            **_linear(f'{mlp}.fc1', hidden, dim),
            **_norm(f'{mlp}.gate.norm', hidden // 2),
            **_linear(f'{mlp}.gate.proj', positions, positions),
            **_linear(f'{mlp}.fc2', dim, hidden // 2),
        }

    return _plain(depth, dim, patch_size, channels, classes, _norm, block)


def resmlp(
    *,
    depth: int,
    dim: int,
    mlp_ratio: int = 4,
    patch_size: int = 16,
    grid: int = 14,
    channels: int = 3,
    classes: int | None = 16,
) -> Shapes:
    """Return names and shapes of timm's ResMLP."""

    def block(name: str) -> Shapes:
        return {
            f'{name}.ls1': (dim,),
            f'{name}.ls2': (dim,),
            **_affine(f'{name}.norm1', dim),
            **_linear(f'{name}.linear_tokens', grid**2, grid**2),
            **_affine(f'{name}.norm2', dim),
            **_linear(f'{name}.mlp_channels.fc1', mlp_ratio * dim, dim),
            **_linear(f'{name}.mlp_channels.fc2', dim, mlp_ratio * dim),
        }

    return _plain(depth, dim, patch_size, channels, classes, _affine, block)


def mlp_mixer(
    *,
    depth: int,
    dim: int,
    token_mlp_dim: int,
    channel_mlp_dim: int,
    patch_size: int = 16,
    grid: int = 14,
    channels: int = 3,
    classes: int | None = 16,
) -> Shapes:
    """Return names and shapes of timm's MLP-Mixer."""

    def block(name: str) -> Shapes:
        return {
            **_norm(f'{name}.norm1', dim),
            **_linear(f'{name}.mlp_tokens.fc1', token_mlp_dim, grid**2),
            **_linear(f'{name}.mlp_tokens.fc2', grid**2, token_mlp_dim),
            **_norm(f'{name}.norm2', dim),
            **_linear(f'{name}.mlp_channels.fc1', channel_mlp_dim, dim),
            **_linear(f'{name}.mlp_channels.fc2', dim, channel_mlp_dim),
        }

    return _plain(depth, dim, patch_size, channels, classes, _norm, block)


def vip(
    *,
    depths: Iterable[int],
    dims: Iterable[int],
    patch_size: int,
    grids: Iterable[int],
    mlp_ratio: int = 3,
    channels: int = 3,
    classes: int | None = 16,
) -> Shapes:
    """Return names and shapes of the authors' Vision Permutator, with transitions between grids."""
    found: Shapes = {}
    number, width, side = 0, 0, 0
    for depth, dim, grid in zip(depths, dims, grids, strict=True):
        if not found:
            found = {'patch_embed.proj.weight': (dim, channels, patch_size, patch_size)}
            found['patch_embed.proj.bias'] = (dim,)
        elif grid < side:
            found[f'network.{number}.proj.weight'] = (dim, width, 2, 2)
            found[f'network.{number}.proj.bias'] = (dim,)
            number += 1
        for block in (f'network.{number}.{j}' for j in range(depth)):
            found |= _norm(f'{block}.norm1', dim)
            found |= {f'{block}.attn.mlp_{axis}.weight': (dim, dim) for axis in 'chw'}
            found |= _linear(f'{block}.attn.reweight.fc1', dim // 4, dim)
            found |= _linear(f'{block}.attn.reweight.fc2', 3 * dim, dim // 4)
            found |= _linear(f'{block}.attn.proj', dim, dim)
            found |= _norm(f'{block}.norm2', dim)
            found |= _linear(f'{block}.mlp.fc1', mlp_ratio * dim, dim)
            found |= _linear(f'{block}.mlp.fc2', dim, mlp_ratio * dim)
        number, width, side = number + 1, dim, grid
    found |= _norm('norm', width)
    return found | (_linear('head', classes, width) if classes else {})


def hiremlp(
    *,
    depths: Iterable[int],
    dims: Iterable[int],
    mlp_ratios: Iterable[int] = (4, 4, 4, 4),
    region_sizes: Iterable[int] = (4, 3, 3, 2),
    channels: int = 3,
    classes: int | None = 16,
) -> Shapes:
    """Return names and shapes of the authors' Hire-MLP, of its dense form for ``classes=None``."""
    found: Shapes = {}

    def norm(name: str, dim: int) -> None:
        found.update(_norm(name, dim))
        found.update({f'{name}.running_{x}': (dim,) for x in ('mean', 'var')})
        found[f'{name}.num_batches_tracked'] = ()

    def conv(name: str, *shape: int, bias: bool = True) -> None:
        found[f'{name}.weight'] = shape
        if bias:
            found[f'{name}.bias'] = shape[:1]

    rows = zip(depths, dims, mlp_ratios, region_sizes, strict=True)
    for stage, (depth, dim, ratio, size) in enumerate(rows):
        lead, side = (f'network.{2 * stage - 1}', 3) if stage else ('patch_embed', 7)
        conv(f'{lead}.proj', dim, channels, side, side)
        norm(f'{lead}.norm', dim)
        for block in (f'network.{2 * stage}.{j}' for j in range(depth)):
            norm(f'{block}.norm1', dim)
            for axis in 'hw':
                conv(f'{block}.attn.mlp_{axis}1', dim // 2, size * dim, 1, 1, bias=False)
                norm(f'{block}.attn.mlp_{axis}1_norm', dim // 2)
                conv(f'{block}.attn.mlp_{axis}2', size * dim, dim // 2, 1, 1)
            conv(f'{block}.attn.mlp_c', dim, dim, 1, 1)
            conv(f'{block}.attn.reweight.fc1', dim // 4, dim, 1, 1)
            conv(f'{block}.attn.reweight.fc2', 3 * dim, dim // 4, 1, 1)
            conv(f'{block}.attn.proj', dim, dim, 1, 1)
            norm(f'{block}.norm2', dim)
            conv(f'{block}.mlp.fc1', ratio * dim, dim, 1, 1)
            conv(f'{block}.mlp.fc2', dim, ratio * dim, 1, 1)
        if classes is None:
            norm(f'norm{2 * stage}', dim)
        channels = dim
    if classes is not None:
        norm('norm', channels)
        conv('head', classes, channels)
    return found


def cyclemlp(
    *,
    depths: Iterable[int],
    dims: Iterable[int],
    mlp_ratios: Iterable[int] = (4, 4, 4, 4),
    channels: int = 3,
    classes: int | None = 16,
) -> Shapes:
    """Return names and shapes of the authors' CycleMLP, without its tables of offsets.

    With ``classes=None`` those of its dense form.
    """
    found: Shapes = {}
    for stage, (depth, dim, ratio) in enumerate(zip(depths, dims, mlp_ratios, strict=True)):
        lead, side = (f'network.{2 * stage - 1}', 3) if stage else ('patch_embed', 7)
        found[f'{lead}.proj.weight'] = (dim, channels, side, side)
        found[f'{lead}.proj.bias'] = (dim,)
        for block in (f'network.{2 * stage}.{j}' for j in range(depth)):
            found |= _norm(f'{block}.norm1', dim)
            found[f'{block}.attn.mlp_c.weight'] = (dim, dim)
            for axis in 'hw':
                found[f'{block}.attn.sfc_{axis}.weight'] = (dim, dim, 1, 1)
                found[f'{block}.attn.sfc_{axis}.bias'] = (dim,)
            found |= _linear(f'{block}.attn.reweight.fc1', dim // 4, dim)
            found |= _linear(f'{block}.attn.reweight.fc2', 3 * dim, dim // 4)
            found |= _linear(f'{block}.attn.proj', dim, dim)
            found |= _norm(f'{block}.norm2', dim)
            found |= _linear(f'{block}.mlp.fc1', ratio * dim, dim)
            found |= _linear(f'{block}.mlp.fc2', dim, ratio * dim)
        if classes is None:
            found |= _norm(f'norm{2 * stage}', dim)
        channels = dim
    return (
        found
        if classes is None
        else {**found, **_norm('norm', dim), **_linear('head', classes, dim)}
    )


def activemlp(
    *,
    depths: Iterable[int],
    dims: Iterable[int],
    mlp_ratios: Iterable[int] = (4, 4, 4, 4),
    shares: Iterable[int] = (2, 4, 4, 8),
    interval: int = 2,
    channels: int = 3,
    classes: int | None = 16,
) -> Shapes:
    """Return names and shapes of the authors' ActiveMLP, of its dense form for ``classes=None``."""
    found: Shapes = {}
    lead, side, last = 'patch_embed', 7, 0
    stages = zip(depths, dims, mlp_ratios, shares, strict=True)
    for stage, (depth, dim, ratio, share) in enumerate(stages):
        if stage:
            lead, side = f'blocks.{stage - 1}.{last}.downsample', 3
        found[f'{lead}.proj.weight'] = (dim, channels, side, side)
        found[f'{lead}.proj.bias'] = (dim,)
        channels, last = dim, depth - 1
        for j, block in enumerate(f'blocks.{stage}.{j}' for j in range(depth)):
            found |= _norm(f'{block}.norm1', dim)
            found[f'{block}.atm.atm_c.weight'] = (dim, dim)
            for axis in 'hw':
                found[f'{block}.atm.atm_{axis}.weight'] = (dim, dim, 1, 1)
                found[f'{block}.atm.atm_{axis}.bias'] = (dim,)
            found |= _linear(f'{block}.atm.fusion.fc1', dim // 4, dim)
            found |= _linear(f'{block}.atm.fusion.fc2', 3 * dim, dim // 4)
            found |= _linear(f'{block}.atm.proj', dim, dim)
            found |= _norm(f'{block}.norm2', dim)
            found |= _linear(f'{block}.mlp.fc1', ratio * dim, dim)
            found |= _linear(f'{block}.mlp.fc2', dim, ratio * dim)
            if j % interval == 0 and j < last:
                found |= _norm(f'{block}.offset_layer.0', dim)
                found |= _linear(f'{block}.offset_layer.1', 2 * dim // share, dim)
        found[f'pos_blocks.{stage}.proj.weight'] = (dim, 1, 3, 3)
        found[f'pos_blocks.{stage}.proj.bias'] = (dim,)
        if classes is None:
            found |= _norm(f'norm_{stage}', dim)
    if classes is None:
        return found
    return found | _norm('norm', dim) | _linear('head', classes, dim)


def _renamed(shapes: Shapes, *patterns: tuple[str, str]) -> Shapes:
    found = {}
    for name, shape in shapes.items():
        for pattern, theirs in patterns:
            name = re.sub(pattern, theirs, name)
        found[name] = shape
    assert len(found) == len(shapes)
    return found


def paddlevit(shapes: Shapes) -> Shapes:
    """Return timm's names and shapes as PaddleViT's: matrices are transposed."""
    turned = {k: s[::-1] if len(s) == 2 else s for k, s in shapes.items()}
    return _renamed(
        turned, (r'^stem\.proj', 'patch_embed.patch_embed'), (r'^blocks', 'mixer_layers')
    )


def deit(shapes: Shapes) -> Shapes:
    """Return timm's names and shapes of ResMLP as those of facebookresearch/deit."""
    flat = {k: s[-1:] if k.endswith(('.alpha', '.beta')) else s for k, s in shapes.items()}
    return _renamed(
        flat,
        (r'^stem', 'patch_embed'),
        (r'\.linear_tokens', '.attn'),
        (r'\.mlp_channels', '.mlp'),
        (r'\.ls(\d)', r'.gamma_\1'),
    )


def flax(shapes: Shapes) -> Shapes:
    """Return timm's names and shapes of MLP-Mixer as Google's code saves them."""
    turned = {k: s[::-1] if len(s) == 2 else s for k, s in shapes.items()}
    dim, channels, *kernel = turned['stem.proj.weight']
    turned['stem.proj.weight'] = (*kernel, channels, dim)
    return _renamed(
        turned,
        (r'^stem\.proj\.weight', 'stem/kernel'),
        (r'^stem\.proj\.bias', 'stem/bias'),
        (r'^blocks\.(\d+)\.', r'MixerBlock_\1/'),
        (r'norm1\.', 'LayerNorm_0/'),
        (r'norm2\.', 'LayerNorm_1/'),
        (r'mlp_(token|channel)s\.fc1\.', r'\1_mixing/Dense_0/'),
        (r'mlp_(token|channel)s\.fc2\.', r'\1_mixing/Dense_1/'),
        (r'^norm\.', 'pre_head_layer_norm/'),
        (r'^head\.', 'head/'),
        (r'(orm(?:_\d)?/)weight', r'\1scale'),
        (r'/weight', '/kernel'),
    )


def mmpretrain_mixer(shapes: Shapes) -> Shapes:
    """Return timm's names of MLP-Mixer as those of mmpretrain's classifier."""
    return _renamed(
        shapes,
        (r'^stem\.proj', 'backbone.patch_embed.projection'),
        (r'^blocks', 'backbone.layers'),
        (r'\.norm(\d)', r'.ln\1'),
        (r'\.mlp_(token|channel)s\.fc1', r'.\1_mix.layers.0.0'),
        (r'\.mlp_(token|channel)s\.fc2', r'.\1_mix.layers.1'),
        (r'^norm', 'backbone.ln1'),
        (r'^head', 'head.fc'),
    )


def write_npz(path: Path, tensors: Mapping[str, Any]) -> None:
    """Write named tensors as models of JAX are saved."""
    with path.open('wb') as file:
        np.savez(file, **{name: tensor.numpy() for name, tensor in tensors.items()})


# -- AS-MLP ---------------------------------------------------------------------------------------

ASMLP_TINY = {'depths': (1, 1, 1, 1), 'dims': (8, 16, 32, 64), 'mlp_ratio': 2}


def asmlp(
    *,
    depths: Iterable[int],
    dims: Iterable[int],
    mlp_ratio: int = 4,
    channels: int = 3,
    classes: int | None = 16,
) -> Shapes:
    """Return names and shapes of the authors' AS-MLP, of its dense form for ``classes=None``."""

    def conv(name: str, rows: int, columns: int, side: int = 1) -> Shapes:
        return {f'{name}.weight': (rows, columns, side, side), f'{name}.bias': (rows,)}

    dims = tuple(dims)
    found = conv('patch_embed.proj', dims[0], channels, 4) | _norm('patch_embed.norm', dims[0])
    for i, (depth, dim) in enumerate(zip(depths, dims, strict=True)):
        for block in (f'layers.{i}.blocks.{j}' for j in range(depth)):
            shift, mlp = f'{block}.axial_shift', f'{block}.mlp'
            found |= _norm(f'{block}.norm1', dim)
            for part in ('conv1', 'conv2_1', 'conv2_2', 'conv3'):
                found |= conv(f'{shift}.{part}', dim, dim)
            found |= _norm(f'{shift}.norm1', dim) | _norm(f'{shift}.norm2', dim)
            found |= _norm(f'{block}.norm2', dim)
            found |= conv(f'{mlp}.fc1', mlp_ratio * dim, dim)
            found |= conv(f'{mlp}.fc2', dim, mlp_ratio * dim)
        if i < 3:
            merging = f'layers.{i}.downsample'
            found[f'{merging}.reduction.weight'] = (dims[i + 1], 4 * dim, 1, 1)
            found |= _norm(f'{merging}.norm', 4 * dim)
        if classes is None:
            found |= _norm(f'norm{i}', dim)
    if classes is not None:
        found |= _norm('norm', dims[-1]) | _linear('head', classes, dims[-1])
    return found
