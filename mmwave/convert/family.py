"""What a family's file states about its published files, and what it recognises in them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mmwave.models import MLPBackbone

from .readers import Framework, Weights
from .rules import Rule, Zeros

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
"""Tensor name -> shape."""


@dataclass(frozen=True)
class Fold:
    """How published deploy files, which fold fewer layers than ours, become our deploy form.

    Attributes:
        expected: names and shapes of our train form -> those that the rules must produce.
        apply: tensors of those names -> tensors of our deploy form.
    """

    expected: Callable[[Shapes], Shapes]
    apply: Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """The backbone that a file's names and shapes describe.

    Attributes:
        arch: fields of the backbone's arch; those that no name and no shape determines are left
            out.
        in_channels: channels of the images.
        classes: classes of the head; None where the file has no head.
        out_indices: stages that the file has an output norm for.
        positions: number of positions of the trained map, for archs with one ``grid``, which is
            made of it; None for the others.
        rules: published names -> ours for this arch; empty where the family's hold for every arch.
        fold: for deploy files; None for the train form.
    """

    arch: Mapping[str, Any]
    in_channels: int
    classes: int | None
    out_indices: tuple[int, ...] = (-1,)
    positions: int | None = None
    rules: tuple[Rule, ...] = ()
    fold: Fold | None = None


@dataclass(frozen=True)
class Release:
    """Where published weights came from, and how they differ from the family's other releases.

    Attributes:
        framework: what wrote the files.
        origin: repository and folder.
        licence: SPDX name of the weights' licence.
        marks: tensor names; a file of this release has all of them, a file of another family, or of
            another release of the same framework, does not.
        names: tables of rules, applied one after the other, from the file's names and layouts to
            those that the family's rules are written for.
        fills: tensors that the framework does not save.
        settings: what the backbone's config must state besides the arch.
        weights: which weights of a training checkpoint with both the published accuracy is of:
            averaged (``'ema'``) or raw (``'model'``) ones.
    """

    framework: Framework
    origin: str
    licence: str
    marks: tuple[str, ...]
    names: tuple[tuple[Rule, ...], ...] = ()
    fills: tuple[Zeros, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    weights: Weights = 'ema'


@dataclass(frozen=True)
class NormEps:
    """The epsilon of norms, which no name and no shape determines.

    Attributes:
        pattern: matches our whole name of the norm.
        value: our epsilon.
        setting: argument of the backbone for another value; empty where there is none.
    """

    pattern: str
    value: float
    setting: str = ''


@dataclass(frozen=True)
class Inspected:
    """What to inspect in a model in memory: settings that no tensor's name or shape determines.

    That GELU is its only activation is always inspected.

    Attributes:
        norm_eps: of the norms; the first whose pattern matches decides.
        grid: whether to read the trained grid from the model.
        check: called with the model and our arch; raises ``UserError`` where they differ.
    """

    norm_eps: tuple[NormEps, ...] = ()
    grid: bool = False
    check: Callable[[nn.Module, Any], None] | None = None


Stated = tuple[dict[str, Any], tuple[str, ...]]
"""Settings of a backbone, and notes on them, a sentence each."""


@dataclass(frozen=True)
class Family:
    """One paper's published files.

    Attributes:
        name: as in configs.
        backbone: our class; its archs, names and shapes are what files are checked against.
        recognise: published names and shapes -> the backbone they describe. It raises ``UserError``
            where they describe none.
        releases: all known ones.
        rules: published names -> ours, where they hold for every arch.
        inspected: what to inspect in a model in memory; None: it is converted by its names alone.
        stated: entries of :data:`.readers.SETTINGS_KEYS` in a checkpoint -> settings of the
            backbone that no tensor determines, and notes. It raises ``UserError`` where they are
            none of the backbone's.
    """

    name: str
    backbone: type[MLPBackbone]
    recognise: Callable[[Shapes], Recognised]
    releases: tuple[Release, ...]
    rules: tuple[Rule, ...] = ()
    inspected: Inspected | None = None
    stated: Callable[[Mapping[str, Any]], Stated] | None = None
