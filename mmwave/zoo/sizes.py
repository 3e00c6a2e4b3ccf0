"""How a variant handles images of other sizes than it was trained at, and what that costs.

The backbone of a classifier's config is built on torch's meta device as detectors and segmentors
use it, with all of its stages as outputs, and counted on images of several sizes.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any, get_args, get_type_hints

import torch
from mmengine.registry import MODELS

from mmwave.apis import load_config
from mmwave.inspect.complexity import count_macs
from mmwave.models.backbones.base import MLPBackbone

Size = tuple[int, int]
"""Height and width in pixels of the image."""

IMAGES: tuple[Size, ...] = ((512, 512), (512, 1024), (800, 1344))
"""Crops of ADE20K and Cityscapes, and the largest batch that COCO's images come in."""


@dataclass(frozen=True, kw_only=True)
class GridFacts:
    """What ties a backbone to a size.

    Attributes:
        strides: of the map of every stage.
        windows: what a window of every stage covers; empty where no weight is tied to a size.
        modes: values of ``grid_mode``; empty where the backbone has no such argument.
    """

    strides: tuple[int, ...]
    windows: tuple[Size, ...]
    modes: tuple[str, ...]


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
    settings = _settings(config)
    modes, backbone = _modes(settings), _build(settings)
    strides = tuple(info.stride for info in backbone.stage_info)
    return GridFacts(
        strides=strides,
        windows=_windows(backbone.arch, strides) if modes else (),
        modes=modes,
    )


def image_costs(
    config: str | PathLike[str], trained: Size, images: Sequence[Size] = IMAGES
) -> Mapping[str, Mapping[Size, ImageCost]]:
    """Return mode -> image -> cost, for the modes that accept every size, the default one first.

    The mode of a backbone without any is the empty text.

    Raises:
        UserError: where ``config`` is no config.
    """
    settings = _settings(config)
    costs = {}
    for mode in [mode for mode in _modes(settings) if mode != 'strict'] or ['']:
        backbone = _build({**settings, 'grid_mode': mode} if mode else settings)
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


def _settings(config: str | PathLike[str]) -> dict[str, Any]:
    """Return the backbone of a config without what only its classifier and its weights need."""
    backbone = load_config(fspath(config)).model.backbone
    return {k: v for k, v in backbone.items() if k not in ('out_indices', 'out_type', 'init_cfg')}


def _build(settings: Mapping[str, Any]) -> MLPBackbone:
    with torch.device('meta'):
        return MODELS.build(dict(settings)).eval()


def _modes(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the values of ``grid_mode`` that the signature of the backbone's class states."""
    kind = MODELS.get(settings['type'])
    if 'grid_mode' not in inspect.signature(kind).parameters:
        return ()
    return get_args(get_type_hints(kind.__init__)['grid_mode'])


def _windows(arch: Any, strides: Sequence[int]) -> tuple[Size, ...]:
    """Return the pixels of every stage's windows; an arch has one grid for all stages, or each."""
    grids = getattr(arch, 'windows', None) or getattr(arch, 'grids', None)
    sides = grids or (arch.grid,) * len(strides)
    pairs = [(side, side) if isinstance(side, int) else side for side in sides]
    return tuple((h * s, w * s) for (h, w), s in zip(pairs, strides, strict=True))
