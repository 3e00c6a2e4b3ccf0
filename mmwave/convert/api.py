"""Convert a published file or model to weights that mmwave loads strictly."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

from torch import Tensor, nn

from mmwave import __version__
from mmwave.checkpoint import (
    check_weights,
    not_finite,
    not_finite_line,
    sha256_of,
    source_and_target,
    write_checkpoint,
)
from mmwave.errors import printable

from .family import Family, Release, Shapes, Stated
from .index import identify
from .memory import settings_of, trained_grid, unwrapped
from .readers import Framework, Source, read
from .rules import Applied, apply
from .target import Target, target_of


@dataclass(frozen=True)
class ConversionReport:
    """What :func:`convert_file` or :func:`convert_model` read and wrote.

    Attributes:
        meta: the metadata in the written file, see :func:`convert_file`; without sha256 for a model
            in memory.
        read: number of tensors in the source.
        written: number of tensors in the target.
        dropped: reason -> source names left out.
        filled: reason -> target names that the source lacks.
        notes: what was chosen or skipped when reading; NaN and infinite values in what was written.
        out_indices: stages that the weights have an output norm for.
    """

    meta: dict[str, Any]
    read: int
    written: int
    dropped: Mapping[str, list[str]]
    filled: Mapping[str, list[str]]
    notes: tuple[str, ...]
    out_indices: tuple[int, ...]

    @property
    def backbone(self) -> dict[str, Any]:
        """Config of the backbone that the weights are for, with the stages that it outputs.

        The metadata leave the stages out: the weights can be loaded for others too.
        """
        return {**self.meta['backbone'], 'out_indices': list(self.out_indices)}


def convert_file(
    src: str | PathLike[str],
    dst: str | PathLike[str],
    *,
    ema: bool | None = None,
    trust: bool = False,
) -> ConversionReport:
    """Convert a published weight file; family and arch are recognised by names and shapes.

    The target holds ``state_dict`` with ``backbone.*`` and, for a classifier, ``head.fc.*``, and
    ``meta``: source (file name), sha256 (of the source), family, arch, framework, weights
    (``'model'`` or ``'ema'``), origin and licence of the published weights, mmwave_version, and
    backbone, the backbone's config. In a safetensors file the metadata are texts, backbone is JSON.
    The target appears under its name when it is complete. RepMLPNet's deploy files become our
    deploy form, for backbones with ``deploy=True``.

    Args:
        src: torch, safetensors, MindSpore or Paddle file, or an ``.npz`` of a JAX model.
        dst: ``.pth`` or ``.safetensors``, replaced where it exists.
        ema: use the averaged weights of a training checkpoint where it has them. Default: those
            that the published accuracy is of, see :class:`Release`.
        trust: see :func:`mmwave.checkpoint.read_checkpoint`.

    Raises:
        FileNotFoundError: where there is no ``src``, or no folder for ``dst``.
        UserError: for another suffix of ``dst``, ``dst`` being ``src``, or a file that cannot be
            read, is of no known family, or lacks tensors, has unexpected ones, or some that are not
            floating-point; all are listed.
    """
    src, dst = source_and_target(src, dst)
    source = read(src, ema=_is_average_published if ema is None else ema, trust=trust)
    family, release = identify(source.tensors, source.framework)
    target, applied = _apply_rules(family, release, source.tensors)
    settings, notes = _settings_stated(family, release, source)
    source = replace(source, notes=(*source.notes, *notes))
    origin = {'source': printable(src.name), 'sha256': sha256_of(src)}
    state, report = _fold_and_report(family, release, target, applied, source, origin, settings)
    write_checkpoint(dst, state, report.meta)
    return report


@dataclass(frozen=True)
class Converted:
    """The result of :func:`convert_model`; tensors may share memory with the model's.

    Attributes:
        backbone: config of the backbone, as in the report.
        weights: the backbone's state dict.
        head: ``fc.weight`` (classes, C) and ``fc.bias`` (classes); empty where there is no head.
        report: what was read and left out.
    """

    backbone: dict[str, Any]
    weights: dict[str, Tensor]
    head: dict[str, Tensor]
    report: ConversionReport


def convert_model(model: nn.Module) -> Converted:
    """Convert a published model in memory, one of timm's for instance, without a file.

    ``backbone = MODELS.build(converted.backbone)`` builds what
    ``backbone.load_state_dict(converted.weights)`` loads strictly. Tensors keep their dtype.

    gMLP, ResMLP, MLP-Mixer and Vision Permutator are inspected for settings that change the outputs
    and that no tensor shows: the kind of GELU, the epsilons of gMLP's gate norm and of MLP-Mixer's
    norms, and a trained grid that is no square are written into the config. Any other difference
    between a part and ours is an error. Models of other families are converted by their names
    alone, as files are, and ``report.notes`` states it.

    Args:
        model: a module whose state dict has the names of a published PyTorch release; it may be
            wrapped for data-parallel training or by ``torch.compile``.

    Raises:
        TypeError: for anything but a module.
        UserError: for a model of no known family, with missing or unexpected tensors, or with an
            activation, an epsilon or a kind of layer that ours does not support; it is named.
    """
    model = unwrapped(model)
    source = Source(dict(model.state_dict()), 'pytorch', 'model')
    check_weights(source.tensors, meta=True)
    family, release = identify(source.tensors, source.framework)
    inspected = family.inspected
    grid = trained_grid(model) if inspected and inspected.grid else None
    target, applied = _apply_rules(family, release, source.tensors, grid)
    if inspected:
        settings, notes = settings_of(model, inspected, applied.sources)
        if inspected.check:
            inspected.check(model, target.sizes)
        settings = {**release.settings, **settings}
    else:
        settings, notes = _settings_stated(family, release, source)
        notes = ('converted the model by its names alone, inspected none of its parts', *notes)
    origin = {'source': f'{type(model).__module__}.{type(model).__qualname__}'}
    state, report = _fold_and_report(
        family, release, target, applied, replace(source, notes=notes), origin, settings
    )
    weights, head = (
        {k.removeprefix(lead): v for k, v in state.items() if k.startswith(lead)}
        for lead in ('backbone.', 'head.')
    )
    return Converted(report.backbone, weights, head, report)


def published_names(
    tensors: Mapping[str, Tensor], framework: Framework = 'pytorch'
) -> dict[str, str]:
    """Return our name -> the published name of every tensor of a published state dict.

    Our names begin with ``backbone.`` and ``head.``, as in converted files; those of a deploy file
    are the ones before it is folded. Whether tensors are missing is not checked.

    Args:
        tensors: the published state dict; tensors on the meta device are enough.
        framework: what it was written by.

    Raises:
        UserError: where it is of no known family, or has a name without a rule.
    """
    family, release = identify(tensors, framework)
    named = _in_family_names(release, tensors)
    rules = family.rules or family.recognise(_shapes_of(named)).rules
    return apply(rules, named.tensors).after(named).sources


def _is_average_published(tensors: Mapping[str, Tensor], framework: Framework) -> bool:
    _, release = identify(tensors, framework)
    return release.weights == 'ema'


def _apply_rules(
    family: Family,
    release: Release,
    tensors: Mapping[str, Tensor],
    grid: tuple[int, int] | None = None,
) -> tuple[Target, Applied]:
    """Return the model that a release's tensors are of, and these under its names and checked."""
    named = _in_family_names(release, tensors)
    target = target_of(family, family.recognise(_shapes_of(named)), grid)
    applied = apply(target.rules, named.tensors, target.expected, release.fills)
    return target, applied.after(named)


def _settings_stated(family: Family, release: Release, source: Source) -> Stated:
    """Return the settings that a release needs, and a checkpoint states, and notes on them."""
    settings, notes = family.stated(source.stated) if family.stated else ({}, ())
    return {**release.settings, **settings}, notes


def _in_family_names(release: Release, tensors: Mapping[str, Tensor]) -> Applied:
    """Return a release's tensors under the names that the family's rules are written for."""
    named = Applied(dict(tensors), sources={name: name for name in tensors})
    for rules in release.names:
        named = apply(rules, named.tensors).after(named)
    return named


def _shapes_of(applied: Applied) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in applied.tensors.items()}


def _fold_and_report(
    family: Family,
    release: Release,
    target: Target,
    applied: Applied,
    source: Source,
    origin: Mapping[str, str],
    settings: Mapping[str, Any],
) -> tuple[dict[str, Tensor], ConversionReport]:
    """Return the tensors as they are to be loaded, folded where the target is, and the report."""
    state, notes = {name: applied.tensors[name] for name in target.expected}, source.notes
    if target.fold:
        state = target.fold(state)
        notes += (f'folded {len(target.expected)} tensors into {len(state)}, for inference',)
    damage = not_finite_line(not_finite(state))
    if damage:
        notes += (damage,)
    norms = (re.match(r'backbone\.out_norms\.(\d+)\.', name) for name in state)
    filled = {why: [n for n in names if n in state] for why, names in applied.filled.items()}
    meta = {
        **origin,
        'family': family.name,
        'arch': target.arch,
        'framework': source.framework,
        'weights': source.weights,
        'origin': release.origin,
        'licence': release.licence,
        'mmwave_version': __version__,
        'backbone': {**target.backbone, **settings},
    }
    return state, ConversionReport(
        meta=meta,
        read=len(source.tensors),
        written=len(state),
        dropped=applied.dropped,
        filled={why: names for why, names in filled.items() if names},
        notes=notes,
        out_indices=tuple(sorted({int(found[1]) for found in norms if found})),
    )
