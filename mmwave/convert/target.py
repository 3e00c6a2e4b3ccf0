"""The model that a file is converted for, with the names and shapes that it must fill."""

import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from mmwave.errors import UserError
from mmwave.models import MLPBackbone
from mmwave.models.backbones.arch import resolve_arch

from .family import Family, Recognised, Shape, Shapes
from .rules import Rule
from .sizes import side_of


@dataclass(frozen=True)
class Target:
    """The model that a file is converted for.

    Attributes:
        arch: name of the arch, ``'custom'`` where the sizes have none.
        sizes: the arch itself.
        backbone: config of the backbone.
        rules: published names -> ours.
        expected: all names and shapes that the rules must produce.
        fold: tensors of these names -> the file's; None where they are the file's.
    """

    arch: str
    sizes: Any
    backbone: dict[str, Any]
    rules: tuple[Rule, ...]
    expected: Shapes
    fold: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None


def target_of(family: Family, found: Recognised, grid: tuple[int, int] | None = None) -> Target:
    """Return the model that a family recognised in a file.

    Args:
        family: whose model it is.
        found: its sizes.
        grid: height and width of the trained map, where they are known; else it is a square.

    Raises:
        UserError: where our backbone cannot be built with these sizes.
    """
    given = dict(found.arch)
    if found.positions is not None:
        given['grid'] = _grid(found.positions, grid)
    kind = family.backbone.__name__
    try:
        sizes = resolve_arch(given, family.backbone.archs)
    except ValueError as error:
        raise UserError(f'of no {kind} that we build: {error}') from error
    named = next((name for name, known in family.backbone.archs.items() if known == sizes), None)
    backbone: dict[str, Any] = {'type': f'mmwave.{kind}', 'arch': named or _stated(given, sizes)}
    if found.in_channels != 3:
        backbone['in_channels'] = found.in_channels
    expected: Shapes = expected_of(
        family.backbone,
        found.classes,
        arch=sizes,
        in_channels=found.in_channels,
        out_indices=found.out_indices,
    )
    if found.fold:
        backbone['deploy'] = True
        expected = found.fold.expected(expected)
    return Target(
        arch=named or 'custom',
        sizes=sizes,
        backbone=backbone,
        rules=found.rules or family.rules,
        expected=expected,
        fold=found.fold.apply if found.fold else None,
    )


def expected_of(
    backbone: type[MLPBackbone], classes: int | None, **settings: Any
) -> dict[str, Shape]:
    """Return the names and shapes of a backbone with a linear head, both as files have them.

    The backbone is built on the meta device, where tensors have shapes and no memory.

    Args:
        backbone: our class.
        classes: classes of the head; None: without a head.
        settings: arguments of the class.

    Raises:
        UserError: where it cannot be built.
    """
    build: Callable[..., MLPBackbone] = backbone
    try:
        with torch.device('meta'):
            model = build(**settings)
    except (RuntimeError, ValueError) as error:  # a tensor of more than 2 ** 63 numbers, for one
        raise UserError(f'of no {backbone.__name__} that we build: {error}') from error
    found = {f'backbone.{k}': tuple(v.shape) for k, v in model.state_dict().items()}
    if classes is not None:
        found['head.fc.weight'] = (classes, model.stage_info[-1].channels)
        found['head.fc.bias'] = (classes,)
    return found


def _grid(positions: int, grid: tuple[int, int] | None) -> int | tuple[int, int]:
    """Return the trained grid, one number for a square."""
    if grid is None:
        return side_of(positions, 'the trained grid')
    if math.prod(grid) != positions:
        raise UserError(f'a grid of {grid[0]} x {grid[1]} has no {positions} positions')
    return grid[0] if grid[0] == grid[1] else grid


def _stated(given: Mapping[str, Any], sizes: Any) -> dict[str, Any]:
    """Return the fields of an arch as a config states them: lists, and no defaults."""
    defaults = {f.name: f.default for f in fields(sizes) if f.default is not MISSING}
    changed = {k: v for k, v in given.items() if k not in defaults or v != defaults[k]}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in changed.items()}
