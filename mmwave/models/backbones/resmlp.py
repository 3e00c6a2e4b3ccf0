"""ResMLP.

Paper: Touvron, Bojanowski, Caron, Cord, El-Nouby, Grave, Izacard, Joulin, Synnaeve, Verbeek, Jegou:
ResMLP: Feedforward networks for image classification with data-efficient training,
arXiv:2105.03404.
Published code: facebookresearch/deit at commit 7e160fe, ``resmlp_models.py`` (Apache-2.0).

A block mixes positions by one linear layer that channels share, then channels by an MLP. There are
no statistics anywhere: scales and shifts that are learned stand in for norms, and a learned factor
per channel, small at first, weighs each branch. The map keeps one stride of 16 (``b24``: 8) from
the stem to the last block.

Shapes: N images, C channels, H x W positions of the map, P positions of the trained one.

Kept from the release: drop path is the same at every depth; the branches' first weights depend on
the variant.

Differences from the published release: names of parameters; the blocks are tapped at four depths,
each tap with an affine layer of its own; images of any size, see ``grid_mode``. Published weights,
converted by ``tools/convert_checkpoint.py``, give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType

import torch
from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_after, fuse_norm_before
from mmwave.models.layers import Affine, DropPath, LinearMLP, TokenLinear, affine_of
from mmwave.models.layers.channel_mlp import mlp_added
from mmwave.models.layers.lean import runner
from mmwave.models.layers.token_grid import TokenGrid
from mmwave.registry import MODELS

from .base import check_positive, check_rate, init_linear, resolve_arch
from .grid import GridMode, PlainBackbone, four_stages, grid_pair, tapped_depths


@dataclass(frozen=True, kw_only=True)
class ResMLPArch:
    """Sizes of a ResMLP.

    Attributes:
        depths: blocks between the taps.
        dim: C.
        mlp_ratio: hidden channels of the channel MLPs, in multiples of C.
        patch_size: pixels per position.
        grid: (h, w) of the trained map in positions; one number stands for a square.
        scale_init: weight of every branch before training; no part of what is trained, so archs
            that differ in it alone are equal.
    """

    depths: Sequence[int]
    dim: int
    mlp_ratio: int = 4
    patch_size: int = 16
    grid: int | tuple[int, int] = 14
    scale_init: float = field(default=1e-5, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, 'depths', tapped_depths(self.depths))
        object.__setattr__(self, 'grid', grid_pair('grid', self.grid))
        check_positive(self, 'dim', 'mlp_ratio', 'patch_size')


# The model functions of the release's resmlp_models.py.
_S = ResMLPArch(depths=four_stages(12), dim=384, scale_init=0.1)

ARCHS: Mapping[str, ResMLPArch] = MappingProxyType(
    {
        's12': _S,  # resmlp_12
        's24': replace(_S, depths=four_stages(24), scale_init=1e-5),  # resmlp_24
        's36': replace(_S, depths=four_stages(36), scale_init=1e-6),  # resmlp_36
        'b24': replace(  # resmlpB_24
            _S, depths=four_stages(24), dim=768, patch_size=8, grid=28, scale_init=1e-6
        ),
    }
)


class ResMLPBlock(nn.Module):
    """Token mixing and channel mixing, each behind an affine layer, weighed, beside a shortcut."""

    def __init__(
        self, arch: ResMLPArch, *, drop_path: float, act_cfg: dict, lean: bool, deploy: bool
    ) -> None:
        super().__init__()
        dim, positions = arch.dim, arch.grid[0] * arch.grid[1]
        self.run, self.deploy = runner(lean and not deploy), deploy
        self.norm1 = Affine(dim, channels_last=True)
        self.tokens = TokenLinear(positions, positions)
        self.scale1 = nn.Parameter(torch.full((dim,), arch.scale_init))
        self.norm2 = nn.Identity() if deploy else Affine(dim, channels_last=True)
        self.mlp = LinearMLP(dim, arch.mlp_ratio * dim, dim, act_cfg)
        self.scale2 = None if deploy else nn.Parameter(torch.full((dim,), arch.scale_init))
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.apply(init_linear)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        if self.deploy:
            x = torch.addcmul(x, grid.mixed(self.norm1(x), self.tokens), self.scale1)
            return mlp_added(x, x, self.mlp)

        def prepare(x: Tensor) -> Tensor:
            return grid.trained(self.norm1(x)).flatten(1, 2)

        def mix(tokens: Tensor) -> Tensor:
            return grid.back(self.tokens(tokens).unflatten(1, grid.window))

        branch = self.scale1 * self.run(mix, prepare, x, modules=(self.norm1,))
        x = x + grid.dropped(branch, self.drop_path)
        branch = self.scale2 * self.mlp(x, self.norm2, self.run)
        return x + grid.dropped(branch, self.drop_path)

    def deploy_state(self) -> dict[str, Tensor]:
        """The deploy form's tensors, computed from this train form's."""
        gone = ('norm2.', 'scale2')
        state = {k: v for k, v in self.state_dict().items() if not k.startswith(gone)}
        first, second = self.mlp.fc1, self.mlp.fc2
        state['mlp.fc1.weight'], state['mlp.fc1.bias'] = fuse_norm_before(
            first.weight, first.bias, *affine_of(self.norm2)
        )
        state['mlp.fc2.weight'], state['mlp.fc2.bias'] = fuse_norm_after(
            second.weight, second.bias, self.scale2, torch.zeros_like(self.scale2)
        )
        return state


@MODELS.register_module()
class ResMLP(PlainBackbone):
    """ResMLP as four maps of one stride, taken at a quarter, half, three quarters and the end.

    Takes images (N, in_channels, H, W) of any size from 32 x 32 up and gives one map
    (N, C, ceil(H / s), ceil(W / s)) per entry of ``out_indices``, s being 16 or, for ``b24``, 8,
    each through an affine layer of its own; ``stage_info`` tells channels and strides. A feature
    pyramid is made by a neck: mmsegmentation's ``Feature2Pyramid`` of four maps, or
    ``mmwave.SimpleFeaturePyramid`` of the last. The published classifier is ``out_indices=(3,)``
    with average pooling and a linear head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`ResMLPArch`.
        in_channels: channels of the images.
        out_indices: stages to output, increasing; negative ones count from the last.
        grid_mode: ``'window'``, ``'resize'`` or ``'strict'``; see :class:`GridBackbone`.
        lean: in training, keep inputs of norms and activations and compute their results again in
            the backward pass: the same gradients, with less memory.
        deploy: build the deploy form: affine layers and scales folded into the channel MLPs. It
            is for inference and takes the weights that :func:`mmwave.deploy.to_deploy` makes.
        drop_path_rate: probability to drop a block's branch in training, the same for all blocks.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        norm_eval: keep every batch norm in eval mode during training; ResMLP has none.
        with_cp: compute activations again in the backward pass instead of storing them.
        act_cfg: activation of the channel MLPs. Published: GELU.
        init_cfg: mmengine init config; see :class:`MLPBackbone`.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, ``out_indices``, ``frozen_stages`` or
            ``drop_path_rate`` out of range, and in ``forward`` for an image too small or, with
            ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(type='GELU')})
    kept_settings = (*PlainBackbone.kept_settings, 'grid_mode')
    form_marks = ('.tokens.weight', '.scale2')

    def __init__(
        self,
        arch: str | dict | ResMLPArch = 's12',
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        grid_mode: GridMode = 'window',
        lean: bool = True,
        deploy: bool = False,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        sizes = resolve_arch(arch, ARCHS)
        check_rate('drop_path_rate', drop_path_rate)
        act_cfg = dict(act_cfg or dict(type='GELU'))
        super().__init__(
            channels=sizes.dim,
            patch_size=sizes.patch_size,
            grid=sizes.grid,
            depths=sizes.depths,
            in_channels=in_channels,
            block=lambda _: ResMLPBlock(
                sizes, drop_path=drop_path_rate, act_cfg=act_cfg, lean=lean, deploy=deploy
            ),
            norm=partial(Affine, sizes.dim, channels_last=True),
            grid_mode=grid_mode,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            norm_eval=norm_eval,
            with_cp=with_cp,
            init_cfg=init_cfg,
            lean=lean,
            deploy=deploy,
        )
        self.arch = sizes
        self.act_cfg = act_cfg

    def deploy_state(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        others = {k: v for k, v in self.state_dict().items() if not k.startswith('stages.')}
        return others | self.deployed_blocks(), (
            f'the affine layer in front and the scale behind into the channel MLP of each of '
            f'{self.num_blocks} blocks',
        )
