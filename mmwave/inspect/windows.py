"""How the windows of a backbone whose weights are tied to a grid cover an image."""

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import torch
from mmengine.registry import MODELS

from mmwave.models.backbones.base import MLPBackbone

Size = tuple[int, int]
"""Height and width in pixels of an image or a window."""


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


def facts_of(settings: Mapping[str, Any]) -> GridFacts:
    """Return the facts of a backbone.

    Args:
        settings: a config's ``model.backbone``, of any outputs and weights.
    """
    settings = bare_settings(settings)
    modes, backbone = grid_modes(settings), build_on_meta(settings)
    strides = tuple(info.stride for info in backbone.stage_info)
    return GridFacts(
        strides=strides,
        windows=_windows(backbone.arch, strides) if modes else (),
        modes=modes,
    )


def window_filling(settings: Mapping[str, Any], size: Size) -> float | None:
    """Return the share of the windows' area that an image fills, None for what has no windows.

    The rest is padding, which costs as much. Of stages with different windows it is the least.

    Args:
        settings: a config's ``model.backbone``.
        size: of the image.
    """
    facts = facts_of(settings)
    if not facts.windows or settings.get('grid_mode', 'window') != 'window':
        return None
    shares = []
    for window in facts.windows:
        covered = [math.ceil(side / own) * own for side, own in zip(size, window, strict=True)]
        shares.append(math.prod(size) / math.prod(covered))
    return min(shares)


def bare_settings(backbone: Mapping[str, Any]) -> dict[str, Any]:
    """Return a backbone's settings without what only its classifier and its weights need."""
    return {k: v for k, v in backbone.items() if k not in ('out_indices', 'out_type', 'init_cfg')}


def build_on_meta(settings: Mapping[str, Any]) -> MLPBackbone:
    """Return a backbone in eval mode that knows shapes only."""
    with torch.device('meta'):
        return MODELS.build(dict(settings)).eval()


def grid_modes(settings: Mapping[str, Any]) -> tuple[str, ...]:
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
