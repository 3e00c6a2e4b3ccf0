"""timm's and mmpretrain's models with our weights, and what a user would pick instead of ours.

The libraries are imported when a model is built, and a ``UserError`` says what to install where one
is missing; mmpretrain's come out of mmengine's registry, as they do in a config. Every model is in
the mode that ours is in, and takes images of the size that its weights are for. Dropout and drop
path are left out.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmwave.apis.usage import libraries_named
from mmwave.mmcv_ops.environment import check_environment
from mmwave.models import GMLP, MLPBackbone, MLPMixer, RepMLPNet, ResMLP
from mmwave.models.layers import build_activation
from mmwave.structures import SizeConstraint

from . import repmlpnet

LEVEL = 3
"""The stage whose map the libraries' models give."""

Rules = Sequence[tuple[str, str]]
"""Patterns in our names and what a library has there, one applied after the other."""

_TIMM: Rules = ((r'^stem\.conv', 'stem.proj'), (r'^out_norms\.3', 'norm'))
_GMLP: Rules = (*_TIMM, (r'^(blocks\.\d+)\.(fc|gate)', r'\1.mlp_channels.\2'))
_RESMLP: Rules = (
    *_TIMM,
    (r'(norm\d?)\.weight', r'\1.alpha'),
    (r'(norm\d?)\.bias', r'\1.beta'),
    (r'\.tokens\.', '.linear_tokens.'),
    (r'\.mlp\.', '.mlp_channels.'),
    (r'\.scale', '.ls'),
)
_MIXER: Rules = (*_TIMM, (r'\.(token|channel)_mlp\.', r'.mlp_\1s.'))
_MMPRETRAIN_MIXER: Rules = (
    (r'^stem\.conv', 'patch_embed.projection'),
    (r'^out_norms\.3', 'ln1'),
    (r'^blocks', 'layers'),
    (r'\.norm', '.ln'),
    (r'_mlp\.fc1', '_mix.layers.0.0'),
    (r'_mlp\.fc2', '_mix.layers.1'),
)
_MMPRETRAIN_REPMLPNET: Rules = (
    (r'^stem\.conv', 'patch_embed.projection'),
    (r'^stem', 'patch_embed'),
    (r'^downsamples\.(\d)\.norm', r'downsample_layers.\1.bn'),
    (r'^downsamples', 'downsample_layers'),
    (r'^out_norms\.3', 'final_norm'),
    (r'global_perceptron\.fc(\d)', r'repmlp_block.gp.conv\1.conv'),
    (r'channel_perceptron\.norm', 'repmlp_block.fc3_bn'),
    (r'channel_perceptron', 'repmlp_block.fc3'),
    (r'local_perceptron\.(\d+)\.conv', r'repmlp_block.repconv\1.conv'),
    (r'local_perceptron\.(\d+)\.norm', r'repmlp_block.repconv\1.bn'),
    (r'ffn\.fc(\d)', r'ffn_block.ffn_fc\1.conv'),
    (r'ffn\.norm(\d)', r'ffn_block.ffn_fc\1.bn'),
)


class Library(nn.Module):
    """A library's model with a copy of our weights: images to the map of the last stage, (map,).

    ``named_parameters`` has our names, so that gradients can be held against ours.

    Args:
        network: the library's model.
        output: what ``network`` makes of images -> the map.
        model: ours, which tells mode, dtype and device.
        state: tensors by our names, in shapes that may differ by axes of length one.
        names: our names -> the library's.
        size: height and width of the images that it takes.
    """

    def __init__(
        self,
        network: nn.Module,
        output: Callable[[Any, Tensor], Tensor],
        *,
        model: MLPBackbone,
        state: Mapping[str, Tensor],
        names: Mapping[str, str],
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.network, self.output = network, output
        self.sizes = SizeConstraint(only=size)
        self.ours = {theirs: ours for ours, theirs in names.items()}
        self.train(model.training).to(next(model.parameters()))
        shapes = {name: tensor.shape for name, tensor in network.state_dict().items()}
        network.load_state_dict(
            {theirs: state[ours].reshape(shapes[theirs]) for theirs, ours in self.ours.items()}
        )

    def named_parameters(
        self, prefix: str = '', recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]:
        lead = f'{prefix}.' if prefix else ''
        for name, parameter in self.network.named_parameters('', recurse, remove_duplicate):
            yield lead + self.ours[name], parameter

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        self.sizes.check(x.shape[2], x.shape[3])
        return (self.output(self.network, x),)


def renamed(names: Iterable[str], rules: Rules, depths: Sequence[int] = ()) -> dict[str, str]:
    """Our names -> the library's; norms of levels that it does not have are left out.

    ``depths``: blocks of our stages, where the library numbers its blocks through.
    """
    found = {}
    for name in names:
        part, stage, *rest = name.split('.')
        if part == 'out_norms' and int(stage) != LEVEL:
            continue
        theirs = name
        if part == 'stages' and depths:
            number = sum(depths[: int(stage)]) + int(rest[0])
            theirs = '.'.join(['blocks', str(number), *rest[1:]])
        for pattern, replacement in rules:
            theirs = re.sub(pattern, replacement, theirs)
        found[name] = theirs
    return found


def plain_size(arch: Any) -> SizeConstraint:
    """The one image size of a model whose matrices are for one grid of patches."""
    return SizeConstraint(only=_pixels(arch))


def _pixels(arch: Any) -> tuple[int, int]:
    return arch.grid[0] * arch.patch_size, arch.grid[1] * arch.patch_size


def _of_plain(
    model: Any, network: nn.Module, output: Callable[[Any, Tensor], Tensor], rules: Rules
) -> Library:
    """``output`` gives the map with its positions in one row: (N, C, H * W)."""
    state, arch = model.state_dict(), model.arch
    return Library(
        network,
        lambda network, x: _laid_out(output(network, x), arch.grid),
        model=model,
        state=state,
        names=renamed(state, rules, arch.depths),
        size=_pixels(arch),
    )


def _laid_out(row: Tensor, grid: tuple[int, int]) -> Tensor:
    return row.view(*row.shape[:2], *grid)


def _timm(model: Any, block: str, rules: Rules, **options: Any) -> Library:
    """A model of timm's ``mlp_mixer.py``, of blocks of the class named ``block``."""
    with libraries_named():
        from timm.models import mlp_mixer

    arch = model.arch
    network_class: Any = mlp_mixer.MlpMixer
    network = network_class(
        num_classes=0,
        img_size=_pixels(arch),
        in_chans=model.in_channels,
        patch_size=arch.patch_size,
        num_blocks=sum(arch.depths),
        embed_dim=arch.dim,
        block_layer=getattr(mlp_mixer, block),
        act_layer=partial(build_activation, model.act_cfg),
        **options,
    )
    return _of_plain(
        model, network, lambda network, x: network.forward_features(x).transpose(1, 2), rules
    )


def timm_gmlp(model: GMLP) -> Library:
    """timm's gMLP."""
    with libraries_named():
        from timm.layers.mlp import GatedMlp

    made = _timm(
        model, 'SpatialGatingBlock', _GMLP, mlp_ratio=model.arch.mlp_ratio, mlp_layer=GatedMlp
    )
    for name, module in made.network.named_modules():
        if name.endswith('gate.norm'):
            module.eps = model.gate_norm_eps
    return made


def timm_resmlp(model: ResMLP) -> Library:
    """timm's ResMLP."""
    with libraries_named():
        from timm.models.mlp_mixer import Affine

    return _timm(model, 'ResBlock', _RESMLP, mlp_ratio=model.arch.mlp_ratio, norm_layer=Affine)


def timm_mlp_mixer(model: MLPMixer) -> Library:
    """timm's MLP-Mixer."""
    arch = model.arch
    return _timm(
        model,
        'MixerBlock',
        _MIXER,
        mlp_ratio=(arch.token_mlp_dim / arch.dim, arch.channel_mlp_dim / arch.dim),
        norm_layer=partial(nn.LayerNorm, eps=model.norm_eps),
    )


def mmpretrain_mlp_mixer(model: MLPMixer) -> Library:
    """mmpretrain's MLP-Mixer."""
    check_environment('mmpretrain')
    arch = model.arch
    network = MODELS.build(
        dict(
            type='mmpretrain.MlpMixer',
            arch=dict(
                embed_dims=arch.dim,
                num_layers=sum(arch.depths),
                tokens_mlp_dims=arch.token_mlp_dim,
                channels_mlp_dims=arch.channel_mlp_dim,
            ),
            img_size=_pixels(arch),
            patch_size=arch.patch_size,
            norm_cfg=dict(type='LN', eps=model.norm_eps),
            act_cfg=model.act_cfg,
            patch_cfg=dict(in_channels=model.in_channels),
        )
    )
    return _of_plain(model, network, lambda network, x: network(x)[-1], _MMPRETRAIN_MIXER)


def mmpretrain_repmlpnet(model: RepMLPNet) -> Library:
    """mmpretrain's RepMLPNet, in its deploy form unless ``model`` is in training.

    Its levels are taken behind the downsamples, so the last one alone is also ours. It takes one
    image size, at which each stage's windows are its map.
    """
    check_environment('mmpretrain')
    arch: Any = model.arch
    deploy = not model.training
    peer = repmlpnet.PublishedDeploy if deploy else repmlpnet.PublishedTrain
    state = peer(model).state_dict()
    height, width = arch.windows[0]
    size = (repmlpnet.PATCH * height, repmlpnet.PATCH * width)
    network = MODELS.build(
        dict(
            type='mmpretrain.RepMLPNet',
            arch=dict(
                channels=list(arch.dims),
                depths=list(arch.depths),
                sharesets_nums=list(arch.share_sets),
            ),
            img_size=size,
            in_channels=model.in_channels,
            reparam_conv_kernels=arch.kernels,
            globalperceptron_ratio=arch.reduction,
            deploy=deploy,
        )
    )
    for block in chain(*network.stages):
        channels = block.repmlp_block.channels
        squeezed, perceptron = channels // arch.reduction, block.repmlp_block.gp
        # It would round them to a multiple of 8, which those of D256 are not.
        perceptron.conv1.conv = nn.Conv2d(channels, squeezed, 1)
        perceptron.conv2.conv = nn.Conv2d(squeezed, channels, 1)
        block.ffn_block.act = build_activation(model.act_cfg)
    return Library(
        network,
        lambda network, x: network(x)[-1],
        model=model,
        state=state,
        names=renamed(state, _MMPRETRAIN_REPMLPNET),
        size=size,
    )


class Features(nn.Module):
    """A feature extractor of timm's with random weights: images to maps of strides 4 to 32.

    Args:
        name: timm's.
        channels_last: whether it gives (N, H, W, C).
        options: of timm's model.
    """

    def __init__(self, name: str, *, channels_last: bool = False, **options: Any) -> None:
        with libraries_named():
            from timm import create_model

        super().__init__()
        self.network = create_model(name, pretrained=False, features_only=True, **options)
        self.channels_last = channels_last

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map images (N, 3, H, W) to four maps (N, C, H / stride, W / stride)."""
        maps = self.network(x)
        return tuple(m.permute(0, 3, 1, 2) if self.channels_last else m for m in maps)


CONTENDERS: Mapping[str, Callable[[], nn.Module]] = MappingProxyType(
    {
        'swin-t': partial(
            Features,
            'swin_tiny_patch4_window7_224',
            channels_last=True,
            strict_img_size=False,
            drop_path_rate=0.0,
        ),
        'convnext-t': partial(Features, 'convnext_tiny'),
    }
)
"""What a user would otherwise pick, by name; their builders."""
