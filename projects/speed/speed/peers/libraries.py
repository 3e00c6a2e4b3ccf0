"""timm's and mmpretrain's models with our weights, and what a user would pick instead of ours.

The libraries are imported when a model is built, and a ``UserError`` says what to install where one
is missing; mmpretrain's are built by mmengine's registry, as they are from a config. Every model is
in the mode that ours is in, and accepts images of the size that its weights are for. Dropout and
drop path are left out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from types import MappingProxyType
from typing import Any

from mmengine.registry import MODELS
from torch import Tensor, nn

from mmwave.apis.usage import libraries_named
from mmwave.convert import published_names
from mmwave.mmcv_ops.environment import check_environment
from mmwave.models import GMLP, MLPBackbone, MLPMixer, RepMLPNet, ResMLP
from mmwave.models.backbones.grid import four_stages
from mmwave.models.layers import build_activation
from mmwave.structures import SizeConstraint

from . import repmlpnet
from .base import Other, last_level


class Library(nn.Module):
    """A library's model with a copy of our weights: images to the map of the last stage, (map,).

    ``named_parameters`` has our names, so that gradients can be compared with ours.

    Args:
        network: the library's model.
        output: ``(network, images)`` -> the map.
        model: ours, whose mode, dtype and device it has.
        state: tensors by our names, in shapes that may differ by axes of length one.
        names: our names -> the library's.
        size: height and width of the images that it accepts.
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


def library_names(network: nn.Module, prefix: str = '') -> dict[str, str]:
    """Return our names -> the library's, by the rules of the converter.

    ``prefix``: lead of the network's names in the library's published files.
    """
    tensors = {prefix + name: tensor for name, tensor in network.state_dict().items()}
    return {
        ours.removeprefix('backbone.'): theirs.removeprefix(prefix)
        for ours, theirs in published_names(tensors).items()
    }


def _restaged(names: Mapping[str, str], depths: Sequence[int]) -> dict[str, str]:
    """Return ``names`` with blocks in stages of ``depths``, not in the converter's equal ones."""
    places = dict(zip(_places(four_stages(sum(depths))), _places(depths), strict=True))
    found = {}
    for ours, theirs in names.items():
        place = '.'.join(ours.split('.')[:3])
        found[places.get(place, place) + ours.removeprefix(place)] = theirs
    return found


def _places(depths: Sequence[int]) -> list[str]:
    return [f'stages.{i}.{j}' for i, depth in enumerate(depths) for j in range(depth)]


def plain_size(arch: Any) -> SizeConstraint:
    """Return the one image size of a model whose matrices are for one grid of patches."""
    return SizeConstraint(only=_pixels(arch))


def _pixels(arch: Any) -> tuple[int, int]:
    return arch.grid[0] * arch.patch_size, arch.grid[1] * arch.patch_size


def _of_plain(
    model: Any, network: nn.Module, output: Callable[[Any, Tensor], Tensor], prefix: str = ''
) -> Library:
    """Wrap a network whose ``output`` is the map with its positions in one row: (N, C, H * W)."""
    arch = model.arch
    return Library(
        network,
        lambda network, x: _as_map(output(network, x), arch.grid),
        model=model,
        state=model.state_dict(),
        names=_restaged(library_names(network, prefix), arch.depths),
        size=_pixels(arch),
    )


def _as_map(row: Tensor, grid: tuple[int, int]) -> Tensor:
    return row.view(*row.shape[:2], *grid)


def _timm(model: Any, block: str, **options: Any) -> Library:
    """Build a model of timm's ``mlp_mixer.py`` with blocks of the class named ``block``."""
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
    return _of_plain(model, network, lambda network, x: network.forward_features(x).transpose(1, 2))


def timm_gmlp(model: GMLP) -> Library:
    """Build timm's gMLP."""
    with libraries_named():
        from timm.layers.mlp import GatedMlp

    made = _timm(model, 'SpatialGatingBlock', mlp_ratio=model.arch.mlp_ratio, mlp_layer=GatedMlp)
    for name, module in made.network.named_modules():
        if name.endswith('gate.norm'):
            module.eps = model.gate_norm_eps
    return made


def timm_resmlp(model: ResMLP) -> Library:
    """Build timm's ResMLP."""
    with libraries_named():
        from timm.models.mlp_mixer import Affine

    return _timm(model, 'ResBlock', mlp_ratio=model.arch.mlp_ratio, norm_layer=Affine)


def timm_mlp_mixer(model: MLPMixer) -> Library:
    """Build timm's MLP-Mixer."""
    arch = model.arch
    return _timm(
        model,
        'MixerBlock',
        mlp_ratio=(arch.token_mlp_dim / arch.dim, arch.channel_mlp_dim / arch.dim),
        norm_layer=partial(nn.LayerNorm, eps=model.norm_eps),
    )


def mmpretrain_mlp_mixer(model: MLPMixer) -> Library:
    """Build mmpretrain's MLP-Mixer."""
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
    return _of_plain(model, network, lambda network, x: network(x)[-1], 'backbone.')


def mmpretrain_repmlpnet(model: RepMLPNet) -> Library:
    """Build mmpretrain's RepMLPNet, in its deploy form unless ``model`` is in training.

    Its levels are taken behind the downsamples, so only the last one equals ours. It accepts one
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
        # It rounds these to a multiple of 8, which those of D256 are not.
        perceptron.conv1.conv = nn.Conv2d(channels, squeezed, 1)
        perceptron.conv2.conv = nn.Conv2d(squeezed, channels, 1)
        block.ffn_block.act = build_activation(model.act_cfg)
    return Library(
        network,
        lambda network, x: network(x)[-1],
        model=model,
        state=state,
        names=library_names(network, 'backbone.'),
        size=size,
    )


class Features(nn.Module):
    """A feature extractor of timm's with random weights: images to maps of strides 4 to 32.

    Args:
        name: timm's.
        channels_last: whether its maps are (N, H, W, C).
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
"""What a user would otherwise pick: name -> builder."""


PEERS = (
    last_level(
        GMLP,
        timm_gmlp,
        name='timm',
        sizes=plain_size,
        suites={'inference_224': ('s16',), 'train_224': ('s16',), 'compiled': ('s16',)},
    ),
    last_level(
        ResMLP,
        timm_resmlp,
        name='timm',
        sizes=plain_size,
        suites={'inference_224': ('s12',)},
    ),
    last_level(
        MLPMixer,
        timm_mlp_mixer,
        name='timm',
        sizes=plain_size,
        suites={'inference_224': ('s16',)},
    ),
)
OTHERS = {
    (RepMLPNet, 'mmpretrain'): Other((3,), mmpretrain_repmlpnet),
    (MLPMixer, 'mmpretrain'): Other((0,), mmpretrain_mlp_mixer),
}
