"""What a family's table of rules says about its published files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn

from .readers import Framework
from .rules import Rule, Zeros

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape."""

Grid = tuple[int, int]
"""Height and width in positions."""


@dataclass(frozen=True)
class Target:
    """The model a file is of.

    Attributes:
        arch: name of the arch, ``'custom'`` where the sizes have none.
        backbone: config of the backbone that the weights are for.
        expected: all names and shapes that the family's rules must give.
        fold: makes the converted file's tensors of these, for published files that are folded in
            part; None where they are the converted file's.
        rules: published names -> ours for this arch, in place of the family's; None where the
            family's hold for every arch.
    """

    arch: str
    backbone: dict[str, Any]
    expected: Shapes
    fold: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None
    rules: tuple[Rule, ...] | None = None


@dataclass(frozen=True)
class Release:
    """Where published weights came from, and what sets them apart from the family's other releases.

    Attributes:
        framework: what wrote the files.
        origin: repository and folder.
        licence: of the weights, an SPDX name.
        marks: tensor names in the file that together no other family has, nor another release of
            the same framework.
        names: turns of rules, each applied to what the one before gave, that make of the file's
            names and layouts those the family's rules are written for.
        fills: tensors that the framework does not save.
        settings: what the backbone's config must say besides the arch.
    """

    framework: Framework
    origin: str
    licence: str
    marks: tuple[str, ...]
    names: tuple[tuple[Rule, ...], ...] = ()
    fills: tuple[Zeros, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NormEps:
    """The epsilon of norms, which no name and no shape tells.

    Attributes:
        pattern: our whole name of the norm.
        value: epsilon of ours.
        setting: argument of the backbone that another value is given to; empty where there is none.
    """

    pattern: str
    value: float
    setting: str = ''


class Recognise(Protocol):
    """Published names and shapes, and the trained grid -> the model."""

    def __call__(self, shapes: Shapes, grid: Grid | None) -> Target: ...


@dataclass(frozen=True)
class Inspected:
    """What changes the outputs of a model in memory and no tensor's name or shape tells.

    That GELU is its only activation is looked at besides.

    Attributes:
        norm_eps: of the norms; the first whose pattern matches decides.
        recognise: as the family's, given the grid of positions that the model was built for; None
            where the family's is enough.
        check: raises ``ValueError`` where the model is none of ours; None: nothing else to look at.
    """

    norm_eps: tuple[NormEps, ...] = ()
    recognise: Recognise | None = None
    check: Callable[[nn.Module, Target], None] | None = None


@dataclass(frozen=True)
class Family:
    """One paper's published files.

    Attributes:
        name: as in configs.
        recognise: published names and shapes -> the model.
        releases: whose files are known.
        rules: published names -> ours, where they are the same for every arch.
        inspected: what is looked at in a model in memory; None: it is taken by its names alone.
    """

    name: str
    recognise: Callable[[Shapes], Target]
    releases: tuple[Release, ...]
    rules: tuple[Rule, ...] = ()
    inspected: Inspected | None = None
