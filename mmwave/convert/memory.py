"""Read what a model in memory holds besides tensors: epsilons, activations, the trained grid."""

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

from .family import Inspected, NormEps

_GRIDS = ('grid_size', 'init_out_size')
"""Attributes of timm's and mmpretrain's patch embeddings: height and width of the map."""

_TANH = {'type': 'GELU', 'approximate': 'tanh'}
_LAYERS = {4: nn.Conv2d, 2: nn.Linear, 1: nn.LayerNorm}
"""Number of axes of a weight -> the kind of its layer."""
_PIXELS = 16  # least side of the map that activations are tried on
# Far below the difference of the two GELUs, 4.7e-4, and above the rounding of float32.
_SAME = 1e-5


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model without the wrappers of ``torch.compile`` and data-parallel training.

    Raises:
        TypeError: where it is no module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f'{reprlib.repr(model)} is a {type(model).__name__}: expected an nn.Module')
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return unwrapped(model.module)
    compiled = getattr(model, '_orig_mod', None)
    return unwrapped(compiled) if isinstance(compiled, nn.Module) else model


def trained_grid(model: nn.Module) -> tuple[int, int] | None:
    """Return the grid that the patch embedding was built for; None where no part states one.

    Raises:
        UserError: where parts contradict each other.
    """
    found = {}
    for name, part in model.named_modules():
        for attribute in _GRIDS:
            value = getattr(part, attribute, None)
            if isinstance(value, tuple | list) and len(value) == 2:
                found[int(value[0]), int(value[1])] = f'{name}.{attribute}'
    if len(found) > 1:
        stated = ', '.join(f'{where} {grid}' for grid, where in found.items())
        raise UserError(f'a model of several grids: {stated}')
    return next(iter(found), None)


def settings_of(
    model: nn.Module, inspected: Inspected, sources: Mapping[str, str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings that a model's config needs, and notes on what could not be inspected.

    Args:
        model: a published model.
        inspected: what to inspect.
        sources: our name -> the model's name of every tensor.

    Raises:
        UserError: naming a part that computes something else than ours.
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
            _add_eps(path, named[path].eps, _rule_of(inspected, ours), settings)
    # Whole patches, so that the stem pads nothing.
    sides = [side * math.ceil(_PIXELS / side) for side in named[owners['stem.conv']].kernel_size]
    x = torch.linspace(-6, 6, math.prod(sides), dtype=torch.float64).reshape(1, 1, *sides)
    tops = {path.partition('.')[0] for path in owners.values()}
    kinds = {
        _function(path, part, x)
        for path, part in named.items()
        if path.partition('.')[0] in tops and _is_function(part)
    } - {'identity'}
    if len(kinds) > 1:
        raise UserError(
            f'activations of several kinds: {", ".join(sorted(kinds))}; ours are all of one kind'
        )
    if 'tanh GELU' in kinds:
        settings['act_cfg'] = dict(_TANH)
    notes = () if kinds else ('found no activation to inspect, assumed the exact GELU',)
    return settings, notes


def _check_layer(path: str, part: nn.Module) -> None:
    """Raise ``UserError`` unless a part is of the kind that its ``weight`` suggests."""
    weight = getattr(part, 'weight', None)
    if not isinstance(weight, Tensor):  # an affine layer of ResMLP's, a block with its scales
        return
    wanted = _LAYERS[weight.ndim]
    if not isinstance(part, wanted):
        raise UserError(f'{path} is a {type(part).__name__}: expected a {wanted.__name__}')
    if isinstance(part, nn.Conv2d):
        _check_patches(path, part)


def _check_patches(path: str, part: nn.Conv2d) -> None:
    adjacent = part.kernel_size == part.stride and part.dilation == (1, 1)
    if not adjacent or part.padding not in ((0, 0), 'valid'):
        raise UserError(
            f'{path} is a convolution of kernel {part.kernel_size}, stride {part.stride}, padding '
            f'{part.padding} and dilation {part.dilation}: patches must not overlap nor leave gaps'
        )


def _rule_of(inspected: Inspected, ours: str) -> NormEps:
    rule = next((r for r in inspected.norm_eps if re.fullmatch(r.pattern, ours)), None)
    if rule is None:
        raise UserError(f'a LayerNorm for {ours}, which is none in our model')
    return rule


def _add_eps(path: str, eps: float, known: NormEps, settings: dict[str, Any]) -> None:
    """Add the epsilon of a norm to the settings, where there is one for it; else check it."""
    if known.setting:
        if settings.setdefault(known.setting, eps) != eps:
            raise UserError(
                f'{path} has an epsilon of {eps}, others like it of {settings[known.setting]}: '
                f'{known.setting} is one for all of them'
            )
    elif eps != known.value:
        raise UserError(f'{path} has an epsilon of {eps}: ours has {known.value}')


def _is_function(part: nn.Module) -> bool:
    """Return whether a part has neither children nor tensors of its own."""
    return not any(True for _ in part.children()) and not (
        any(True for _ in part.parameters()) or any(True for _ in part.buffers())
    )


def _function(path: str, part: nn.Module, x: Tensor) -> str:
    """Return the name of the function that a part computes in eval mode.

    Raises:
        UserError: where it is none of identity and the two GELUs.
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
        raise UserError(f'{path}, a {type(part).__name__}, cannot be inspected: {error}') from error
    raise UserError(
        f'{path}, a {type(part).__name__}, is none of the activations known here: '
        f'{", ".join(known)}'
    )
