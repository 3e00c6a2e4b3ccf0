"""The simple feature pyramid of ViTDet: levels of several strides from one map.

Paper: Li, Mao, Girshick, He: Exploring Plain Vision Transformer Backbones for Object Detection,
ECCV 2022, arXiv:2203.16527, section 3 and appendix.
Published code: facebookresearch/detectron2, ``detectron2/modeling/backbone/vit.py`` (Apache-2.0).

A backbone whose stages all have one stride has no maps to merge, and its last one is its best. Each
level is made of that one alone: brought to the level's size by deconvolutions or by pooling, then
to the pyramid's channels by a 1 x 1 and a 3 x 3 convolution. As there, convolutions that a norm
follows have no bias, and weights start as torch's layers do.

Difference from the published code: pooling windows at the border that the map fills in part count
too, so that a map of odd sides loses no row and one of a single position stays one.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.models.layers import Module
from mmwave.models.layers.norm import LayerNorm2d
from mmwave.registry import MODELS

SCALES = (4, 2, 1, 0.5, 0.25)
EPS = 1e-6
"""Of the norms, as in the published code."""


@MODELS.register_module()
class SimpleFeaturePyramid(Module):
    """Map ``((N, C, H, W),)`` to maps (N, ``out_channels``, H * scale, W * scale), finest first.

    Sides of levels below scale 1 are rounded up.

    Args:
        in_channels: C.
        out_channels: channels of every level.
        scales: positions of each level per position of the map along both axes, decreasing; any of
            4, 2, 1, 0.5 and 0.25.
        num_outs: number of levels; those beyond ``scales`` take every second position of the one
            before. By default one level a scale.
        init_cfg: mmengine init config.

    Raises:
        ValueError: for other scales, fewer levels than scales, no channels, or channels that the
            deconvolutions cannot halve; in ``forward`` for more than one map, or one of another
            width.
        TypeError: where ``in_channels`` is no number, and in ``forward`` where the input is no
            tuple or list.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        scales: Sequence[float] = (4, 2, 1, 0.5),
        num_outs: int | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if not isinstance(in_channels, int):
            raise TypeError(f'in_channels={in_channels} must be one number, the width of one map')
        scales = tuple(scales)
        if not scales or list(scales) != sorted(set(scales) & set(SCALES), reverse=True):
            raise ValueError(
                f'scales={scales} must be decreasing and among {", ".join(map(str, SCALES))}'
            )
        halved = max(int(scales[0]), 1)
        if in_channels < 1 or in_channels % halved:
            raise ValueError(
                f'in_channels={in_channels} must be a positive multiple of {halved} '
                f'for scale {scales[0]}'
            )
        if not isinstance(out_channels, int) or out_channels < 1:
            raise ValueError(f'out_channels={out_channels} must be a positive whole number')
        num_outs = len(scales) if num_outs is None else num_outs
        if num_outs < len(scales):
            raise ValueError(f'num_outs={num_outs} must be at least {len(scales)}, one per scale')
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.scales = scales
        self.num_outs = num_outs
        self.levels = nn.ModuleList(_level(s, in_channels, out_channels) for s in scales)

    def strides(self, stride: float) -> tuple[float, ...]:
        """Input pixels per position of every level, from those of the backbone's map."""
        strides = [stride / scale for scale in self.scales]
        while len(strides) < self.num_outs:
            strides.append(2 * strides[-1])
        return tuple(strides)

    def forward(self, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        x = self._only(inputs)
        outputs = [level(x) for level in self.levels]
        while len(outputs) < self.num_outs:
            outputs.append(F.max_pool2d(outputs[-1], 1, stride=2))
        return tuple(outputs)

    def _only(self, inputs: tuple[Tensor, ...]) -> Tensor:
        if not isinstance(inputs, tuple | list):
            raise TypeError(f'expected a tuple of one map, got a {type(inputs).__name__}')
        if len(inputs) != 1:
            # Not the last of them: a backbone's unused norms would get no gradients, which DDP
            # treats as an error.
            raise ValueError(
                f'expected one map, got {len(inputs)}: build the backbone with out_indices=(-1,)'
            )
        if inputs[0].dim() != 4 or inputs[0].shape[1] != self.in_channels:
            raise ValueError(
                f'expected a map (N, {self.in_channels}, H, W), got one of shape '
                f'{tuple(inputs[0].shape)}: in_channels must be the width of the backbone'
            )
        return inputs[0]


def _level(scale: float, in_channels: int, out_channels: int) -> nn.Module:
    """The layers of one level: (N, in_channels, H, W) -> (N, out_channels, H', W')."""
    resample: list[nn.Module] = []
    channels = in_channels
    if scale < 1:
        resample.append(nn.MaxPool2d(round(1 / scale), ceil_mode=True))
    while scale > 1:
        if resample:
            resample += [LayerNorm2d(channels, eps=EPS), nn.GELU()]
        resample.append(nn.ConvTranspose2d(channels, channels // 2, 2, stride=2))
        channels, scale = channels // 2, scale / 2
    return nn.Sequential(
        OrderedDict(
            resample=nn.Sequential(*resample),
            project=nn.Conv2d(channels, out_channels, 1, bias=False),
            project_norm=LayerNorm2d(out_channels, eps=EPS),
            conv=nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            norm=LayerNorm2d(out_channels, eps=EPS),
        )
    )
