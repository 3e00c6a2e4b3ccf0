"""What a family's table of rules says about its published files."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .rules import Rule, Zeros

Shapes = Mapping[str, tuple[int, ...]]
"""Tensor name -> shape."""


@dataclass(frozen=True)
class Target:
    """The model a file is of.

    Attributes:
        arch: name of the arch, ``'custom'`` where the sizes have none.
        backbone: config of the backbone that the weights are for.
        expected: all names and shapes of the converted file.
    """

    arch: str
    backbone: dict[str, Any]
    expected: Shapes


@dataclass(frozen=True)
class Release:
    """Where published weights came from, and what sets them apart from the family's other release.

    Attributes:
        origin: repository and folder.
        licence: of the weights, an SPDX name.
        names: rules that turn the framework's names into those the family's rules are written for.
        fills: tensors that the framework does not save.
        settings: what the backbone's config must say besides the arch.
    """

    origin: str
    licence: str
    names: tuple[Rule, ...] = ()
    fills: tuple[Zeros, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Family:
    """One paper's published files.

    Attributes:
        name: as in configs.
        marks: tensor names that together no other family has, alike in every release.
        rules: published names -> ours.
        recognise: published names and shapes -> the model.
        releases: framework -> release.
    """

    name: str
    marks: tuple[str, ...]
    rules: tuple[Rule, ...]
    recognise: Callable[[Shapes], Target]
    releases: Mapping[str, Release]
