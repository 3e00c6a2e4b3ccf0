"""MLP-Mixer.

Paper: Tolstikhin, Houlsby, Kolesnikov, Beyer, Zhai, Unterthiner, Yung, Steiner, Keysers, Uszkoreit,
Lucic, Dosovitskiy: MLP-Mixer: An all-MLP Architecture for Vision, NeurIPS 2021, arXiv:2105.01601.
Published code: google-research/vision_transformer at commit c6de1e5, ``vit_jax/models_mixer.py``
(Apache-2.0).

A block mixes positions by an MLP that channels share, then channels by an MLP that positions share,
each behind a norm. The map keeps one stride of 16 from the stem to the last block.

Shapes: N images, C channels, H x W positions of the map, P positions of the trained one, D_S and
D_C hidden sizes of the token and the channel MLPs.

Kept from the release: norms have an epsilon of 1e-6 (mmpretrain's port has 1e-5: ``norm_eps``);
layers start as flax's do. Its GELU is the tanh approximation, while the ports to PyTorch use the
exact one: converted files say which.

Differences from the published release: names of parameters; the blocks are tapped at four depths,
each tap with a norm of its own; images of any size, see ``grid_mode``; drop path. Published
weights, converted by ``tools/convert_checkpoint.py``, give the same outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType

from torch import Tensor, nn

from mmwave.deploy.fuse import fuse_norm_before
from mmwave.models.layers import DropPath, LinearMLP, TokenLinear, affine_of
from mmwave.models.layers.channel_mlp import activated, added, mlp_added
from mmwave.models.layers.lean import runner
from mmwave.models.layers.token_grid import TokenGrid
from mmwave.registry import MODELS

from .base import check_positive, drop_path_rates, resolve_arch
from .grid import GridMode, PlainBackbone, four_stages, grid_pair, tapped_depths


@dataclass(frozen=True, kw_only=True)
class MLPMixerArch:
    """Sizes of an MLP-Mixer.

    Attributes:
        depths: blocks between the taps.
        dim: C.
        token_mlp_dim: D_S.
        channel_mlp_dim: D_C.
        patch_size: pixels per position.
        grid: (h, w) of the trained map in positions; one number stands for a square.
    """

    depths: Sequence[int]
    dim: int
    token_mlp_dim: int
    channel_mlp_dim: int
    patch_size: int = 16
    grid: int | tuple[int, int] = 14

    def __post_init__(self) -> None:
        object.__setattr__(self, 'depths', tapped_depths(self.depths))
        object.__setattr__(self, 'grid', grid_pair('grid', self.grid))
        check_positive(self, 'dim', 'token_mlp_dim', 'channel_mlp_dim', 'patch_size')


# Table 1 of the paper.
_S = MLPMixerArch(depths=four_stages(8), dim=512, token_mlp_dim=256, channel_mlp_dim=2048)

ARCHS: Mapping[str, MLPMixerArch] = MappingProxyType(
    {
        's16': _S,
        'b16': MLPMixerArch(
            depths=four_stages(12), dim=768, token_mlp_dim=384, channel_mlp_dim=3072
        ),
        'l16': replace(
            _S, depths=four_stages(24), dim=1024, token_mlp_dim=512, channel_mlp_dim=4096
        ),
    }
)


class TokenMLP(LinearMLP):
    """Mix positions of every channel alike: (M, P, C) -> (M, P, C)."""

    layer = TokenLinear


class MixerBlock(nn.Module):
    """Token mixing and channel mixing, each behind a norm and beside a shortcut."""

    def __init__(
        self,
        arch: MLPMixerArch,
        *,
        drop_path: float,
        act_cfg: dict,
        norm_eps: float,
        lean: bool,
        deploy: bool,
    ) -> None:
        super().__init__()
        dim, positions = arch.dim, arch.grid[0] * arch.grid[1]
        self.run, self.deploy = runner(lean and not deploy), deploy
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.token_mlp = TokenMLP(positions, arch.token_mlp_dim, positions, act_cfg)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps, elementwise_affine=not deploy)
        self.channel_mlp = LinearMLP(dim, arch.channel_mlp_dim, dim, act_cfg)
        self.drop_path = DropPath(drop_path) if drop_path else None
        self.apply(_init)

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        def prepare(x: Tensor) -> Tensor:
            return grid.trained(self.norm1(x)).flatten(1, 2)

        def back(tokens: Tensor) -> Tensor:
            return grid.back(tokens.unflatten(1, grid.window))

        if self.deploy:
            mlp = self.token_mlp
            x = added(back(mlp.fc2(activated(mlp.act, mlp.fc1(prepare(x))))), x)
            return mlp_added(x, self.norm2(x), self.channel_mlp)
        mixed = back(self.token_mlp(x, prepare, self.run, modules=(self.norm1,)))
        x = x + grid.dropped(mixed, self.drop_path)
        return x + grid.dropped(self.channel_mlp(x, self.norm2, self.run), self.drop_path)

    def deploy_state(self) -> dict[str, Tensor]:
        """The deploy form's tensors, computed from this train form's."""
        state = {k: v for k, v in self.state_dict().items() if not k.startswith('norm2.')}
        first = self.channel_mlp.fc1
        state['channel_mlp.fc1.weight'], state['channel_mlp.fc1.bias'] = fuse_norm_before(
            first.weight, first.bias, *affine_of(self.norm2)
        )
        return state


def _init(module: nn.Module) -> None:
    """As flax fills a dense layer: variance 1 / inputs, no bias."""
    if isinstance(module, nn.Linear):
        # A normal cut off at two deviations has 0.88 of its deviation left.
        std = module.in_features**-0.5 / 0.87962566
        nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        nn.init.zeros_(module.bias)


@MODELS.register_module()
class MLPMixer(PlainBackbone):
    """MLP-Mixer as four maps of one stride, taken at a quarter, half, three quarters and the end.

    Takes images (N, in_channels, H, W) of any size from 32 x 32 up and gives one map
    (N, C, ceil(H / 16), ceil(W / 16)) per entry of ``out_indices``, each through an output norm of
    its own; ``stage_info`` tells channels and strides. A feature pyramid is made by a neck:
    mmsegmentation's ``Feature2Pyramid`` of four maps, or ``mmwave.SimpleFeaturePyramid`` of the
    last. The published classifier is ``out_indices=(3,)`` with average pooling and a linear head.

    Args:
        arch: a name of :data:`ARCHS`, or a dict of the fields of :class:`MLPMixerArch`.
        in_channels: channels of the images.
        out_indices: stages to output, increasing; negative ones count from the last.
        grid_mode: ``'window'``, ``'resize'`` or ``'strict'``; see :class:`GridBackbone`.
        norm_eps: epsilon of every norm. timm, Google, PaddleViT: 1e-6; mmpretrain: 1e-5.
        lean: in training, keep inputs of norms and activations and compute their results again in
            the backward pass: the same gradients, with less memory.
        deploy: build the deploy form: norms folded into the channel MLPs. It is for inference
            and takes the weights that :func:`mmwave.deploy.to_deploy` makes.
        drop_path_rate: probability to drop the last block's branches in training; it grows linearly
            from 0 over the blocks.
        frozen_stages: -1 freezes nothing, 0 the stem, k the stem and the first k stages.
        norm_eval: keep every batch norm in eval mode during training; MLP-Mixer has none.
        with_cp: compute activations again in the backward pass instead of storing them.
        act_cfg: activation of the MLPs. timm's weights: GELU; Google's, as published, need
            ``dict(type='GELU', approximate='tanh')``.
        init_cfg: mmengine init config; see :class:`MLPBackbone`.

    Raises:
        ValueError: for an unknown arch or ``grid_mode``, ``out_indices``, ``frozen_stages`` or
            ``drop_path_rate`` out of range, a ``norm_eps`` that is not positive, and in ``forward``
            for an image too small or, with ``'strict'``, of another size.
        TypeError: for an unknown argument or an unknown field of ``arch``.
    """

    archs = ARCHS
    published = MappingProxyType({'act_cfg': dict(type='GELU'), 'norm_eps': 1e-6})
    kept_settings = (*PlainBackbone.kept_settings, 'grid_mode', 'norm_eps')
    form_marks = ('.channel_mlp.fc1.weight', '.norm2.weight')

    def __init__(
        self,
        arch: str | dict | MLPMixerArch = 'b16',
        *,
        in_channels: int = 3,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        grid_mode: GridMode = 'window',
        lean: bool = True,
        deploy: bool = False,
        norm_eps: float = 1e-6,
        drop_path_rate: float = 0.0,
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        act_cfg: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        if not norm_eps > 0:
            raise ValueError(f'norm_eps={norm_eps} must be positive')
        sizes = resolve_arch(arch, ARCHS)
        act_cfg = dict(act_cfg or dict(type='GELU'))
        (rates,) = drop_path_rates(drop_path_rate, (sum(sizes.depths),))
        super().__init__(
            channels=sizes.dim,
            patch_size=sizes.patch_size,
            grid=sizes.grid,
            depths=sizes.depths,
            in_channels=in_channels,
            block=lambda k: MixerBlock(
                sizes,
                drop_path=rates[k],
                act_cfg=act_cfg,
                norm_eps=norm_eps,
                lean=lean,
                deploy=deploy,
            ),
            norm=partial(nn.LayerNorm, sizes.dim, eps=norm_eps),
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
        self.norm_eps = norm_eps

    def deploy_state(self) -> tuple[dict[str, Tensor], tuple[str, ...]]:
        others = {k: v for k, v in self.state_dict().items() if not k.startswith('stages.')}
        return others | self.deployed_blocks(), (
            f'scale and shift of the norm into the channel MLP of each of {self.num_blocks} blocks',
        )
