"""What a family's table of rules says about its published files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .readers import Framework
from .rules import Rule, Zeros

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape."""


@dataclass(frozen=True)
class Target:
    """The model a file is of.

    Attributes:
        arch: name of the arch, ``'custom'`` where the sizes have none.
        backbone: config of the backbone that the weights are for.
        expected: all names and shapes that the family's rules must give.
        fold: makes the converted file's tensors of these, for published files that are folded in
            part; None where they are the converted file's.
    """

    arch: str
    backbone: dict[str, Any]
    expected: Shapes
    fold: Callable[[Mapping[str, Tensor]], dict[str, Tensor]] | None = None


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
class Family:
    """One paper's published files.

    Attributes:
        name: as in configs.
        rules: published names -> ours.
        recognise: published names and shapes -> the model.
        releases: whose files are known.
    """

    name: str
    rules: tuple[Rule, ...]
    recognise: Callable[[Shapes], Target]
    releases: tuple[Release, ...]
