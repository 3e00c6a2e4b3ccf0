"""How a variant handles images of other sizes than it was trained at, and what that costs.

The backbone of a classifier's config is built on torch's meta device as detectors and segmentors
use it, with all of its stages as outputs, and counted on images of several sizes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath

import torch

from mmwave.apis import load_config
from mmwave.inspect.complexity import count_macs
from mmwave.inspect.windows import (
    GridFacts,
    Size,
    bare_settings,
    build_on_meta,
    facts_of,
    grid_modes,
)

IMAGES: tuple[Size, ...] = ((512, 512), (512, 1024), (800, 1344))
"""Crops of ADE20K and Cityscapes, and the largest batch that COCO's images come in."""


@dataclass(frozen=True, kw_only=True)
class ImageCost:
    """What an image of some size costs.

    Attributes:
        macs: multiply-accumulates of the backbone.
        factor: ``macs`` over what as many pixels cost at the trained size.
    """

    macs: int
    factor: float


def grid_facts(config: str | PathLike[str]) -> GridFacts:
    """Return the facts of the backbone of ``config``.

    Raises:
        UserError: where ``config`` is no config.
    """
    return facts_of(load_config(fspath(config)).model.backbone)


def image_costs(
    config: str | PathLike[str], trained: Size, images: Sequence[Size] = IMAGES
) -> Mapping[str, Mapping[Size, ImageCost]]:
    """Return mode -> image -> cost, for the modes that accept every size, the default one first.

    The mode of a backbone without any is the empty text.

    Raises:
        UserError: where ``config`` is no config.
    """
    settings = bare_settings(load_config(fspath(config)).model.backbone)
    costs = {}
    for mode in [mode for mode in grid_modes(settings) if mode != 'strict'] or ['']:
        backbone = build_on_meta({**settings, 'grid_mode': mode} if mode else settings)
        channels = settings.get('in_channels', 3)
        macs = {
            size: count_macs(backbone, torch.empty(1, channels, *size, device='meta'))
            for size in (trained, *images)
        }
        pixel = macs[trained] / (trained[0] * trained[1])
        costs[mode] = {
            size: ImageCost(macs=macs[size], factor=macs[size] / (pixel * size[0] * size[1]))
            for size in images
        }
    return costs
