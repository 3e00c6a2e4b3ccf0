"""What a model in memory tells besides its tensors: epsilons, activations, the trained grid."""

import copy
import math
import re
import reprlib
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmwave.errors import UserError

from .family import Grid, Inspected, NormEps

_GRIDS = ('grid_size', 'init_out_size')
"""Attributes with the height and width of the map: of timm's patch embedding, of mmpretrain's."""

_TANH = {'type': 'GELU', 'approximate': 'tanh'}
_LAYERS = {4: nn.Conv2d, 2: nn.Linear, 1: nn.LayerNorm}
"""Axes of a weight -> the layer that has it."""
_PIXELS = 16  # a side of what activations are tried on, at least
# Far below what sets the two GELUs apart, 4.7e-4, and above the rounding of float32.
_SAME = 1e-5


def unwrapped(model: nn.Module) -> nn.Module:
    """The model in what ``torch.compile`` and data-parallel training put around it.

    Raises:
        TypeError: where it is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f'{reprlib.repr(model)} is a {type(model).__name__}: expected an nn.Module')
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(model.module)
    compiled = getattr(model, '_orig_mod', None)
    return unwrapped(compiled) if isinstance(compiled, nn.Module) else model


def trained_grid(model: nn.Module) -> Grid | None:
    """The grid that the patch embedding was built for; None where no part of the model says it.

    Raises:
        ValueError: where parts contradict each other.
    """
    found = {}
    for name, part in model.named_modules():
        for attribute in _GRIDS:
            value = getattr(part, attribute, None)
            if isinstance(value, tuple | list) and len(value) == 2:
                found[int(value[0]), int(value[1])] = f'{name}.{attribute}'
    if len(found) > 1:
        said = ', '.join(f'{where} {grid}' for grid, where in found.items())
        raise UserError(f'a model of several grids: {said}')
    return next(iter(found), None)


def settings_of(
    model: nn.Module, inspected: Inspected, sources: Mapping[str, str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """What the backbone's config must say of a model, and what could not be looked at.

    Args:
        model: a published model.
        inspected: what to look at.
        sources: our name -> the model's name of every tensor.

    Raises:
        ValueError: naming a part that computes what ours does not.
    """
    named = dict(model.named_modules())
    owners = {
        target.removeprefix('backbone.').rpartition('.')[0]: source.rpartition('.')[0]
        for target, source in sources.items()
        if target.startswith('backbone.')
    }
    settings: dict[str, Any] = {}
    for ours, path in owners.items():
        _check_layer(path, named[path])
        if isinstance(named[path], nn.LayerNorm):
            _take_eps(path, named[path].eps, _known(inspected, ours), settings)
    # Whole patches: what fills up the last ones is nothing there.
    sides = [side * math.ceil(_PIXELS / side) for side in named[owners['stem.conv']].kernel_size]
    x = torch.linspace(-6, 6, math.prod(sides), dtype=torch.float64).reshape(1, 1, *sides)
    tops = {path.partition('.')[0] for path in owners.values()}
    kinds = {
        _function(path, part, x)
        for path, part in named.items()
        if path.partition('.')[0] in tops and _is_function(part)
    } - {'identity'}
    if len(kinds) > 1:
        raise UserError(f'activations of several kinds: {", ".join(sorted(kinds))}; ours are alike')
    if 'tanh GELU' in kinds:
        settings['act_cfg'] = dict(_TANH)
    notes = () if kinds else ('found no activation to look at, took it for the exact GELU',)
    return settings, notes


def _check_layer(path: str, part: nn.Module) -> None:
    """Raise ``ValueError`` unless a part with a ``weight`` is the layer that it looks like."""
    weight = getattr(part, 'weight', None)
    if not isinstance(weight, Tensor):  # an affine layer of ResMLP's, a block with its scales
        return
    wanted = _LAYERS[weight.ndim]
    if not isinstance(part, wanted):
        raise UserError(f'{path} is a {type(part).__name__}: expected a {wanted.__name__}')
    if isinstance(part, nn.Conv2d):
        _check_patches(path, part)


def _check_patches(path: str, part: nn.Conv2d) -> None:
    alike = part.kernel_size == part.stride and part.dilation == (1, 1)
    if not alike or part.padding not in ((0, 0), 'valid'):
        raise UserError(
            f'{path} is a convolution of kernel {part.kernel_size}, stride {part.stride}, padding '
            f'{part.padding} and dilation {part.dilation}: patches must lie side by side'
        )


def _known(inspected: Inspected, ours: str) -> NormEps:
    rule = next((r for r in inspected.norm_eps if re.fullmatch(r.pattern, ours)), None)
    if rule is None:
        raise UserError(f'a LayerNorm for {ours}, which has none')
    return rule


def _take_eps(path: str, eps: float, known: NormEps, settings: dict[str, Any]) -> None:
    """Put another epsilon of a norm among the settings, where there is one for it."""
    if known.setting:
        if settings.setdefault(known.setting, eps) != eps:
            raise UserError(
                f'{path} has an epsilon of {eps}, others like it of {settings[known.setting]}: '
                f'{known.setting} must be alike in all of them'
            )
    elif eps != known.value:
        raise UserError(f'{path} has an epsilon of {eps}: ours has {known.value}')


def _is_function(part: nn.Module) -> bool:
    """Whether a part has neither parts nor tensors of its own."""
    return not any(True for _ in part.children()) and not (
        any(True for _ in part.parameters()) or any(True for _ in part.buffers())
    )


def _function(path: str, part: nn.Module, x: Tensor) -> str:
    """What a part makes of ``x`` in eval mode.

    Raises:
        ValueError: where it is none of identity and the two GELUs.
    """
    known = {
        'identity': x,
        'exact GELU': F.gelu(x),
        'tanh GELU': F.gelu(x, approximate='tanh'),
    }
    try:
        with torch.no_grad():
            value = copy.deepcopy(part).eval()(x.clone())
        for kind, wanted in known.items():
            if value.shape == x.shape and (value - wanted).abs().max() < _SAME:
                return kind
    except Exception as error:  # a part may fail on this input in any way
        raise UserError(f'{path}, a {type(part).__name__}, cannot be looked at: {error}') from error
    raise UserError(
        f'{path}, a {type(part).__name__}, is none of the activations known here: '
        f'{", ".join(known)}'
    )
