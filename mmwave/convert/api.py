"""A published file or model in, weights that mmwave loads strictly out."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
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

from .family import Family, Release, Shapes, Target
from .index import identify
from .memory import settings_of, trained_grid, unwrapped
from .readers import Source, read
from .rules import Applied, apply


@dataclass(frozen=True)
class ConversionReport:
    """What :func:`convert_file` or :func:`convert_model` read and wrote.

    Attributes:
        meta: the metadata in the written file, see :func:`convert_file`; of a model in memory, all
            but sha256.
        read: number of tensors in the source.
        written: number of tensors in the target.
        dropped: reason -> source names left out.
        filled: reason -> target names that the source has not.
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

        The metadata do not name the stages: the weights are as good for others.
        """
        return {**self.meta['backbone'], 'out_indices': list(self.out_indices)}


def convert_file(
    src: str | PathLike[str],
    dst: str | PathLike[str],
    *,
    ema: bool = True,
    trust: bool = False,
) -> ConversionReport:
    """Convert a published weight file to mmwave's names; names and shapes tell family and arch.

    The target holds ``state_dict`` with ``backbone.*`` and, for a classifier, ``head.fc.*``, and
    ``meta``: source (file name), sha256 (of the source), family, arch, framework, weights
    (``'model'`` or ``'ema'``), origin and licence of the published weights, mmwave_version, and
    backbone, the backbone's config. In a safetensors file the metadata are texts, backbone is JSON.
    The target appears under its name when it is complete. Files of RepMLPNet's deploy form become
    ours, for backbones with ``deploy=True``.

    Args:
        src: torch, safetensors, MindSpore or Paddle file, or an ``.npz`` of a JAX model.
        dst: ``.pth`` or ``.safetensors``, replaced where it exists.
        ema: take the averaged weights of a training checkpoint where it has them.
        trust: see :func:`mmwave.checkpoint.read_checkpoint`.

    Raises:
        FileNotFoundError: where there is no ``src``, or no folder for ``dst``.
        UserError: for another suffix of ``dst``, ``dst`` being ``src``, or a file that cannot be
            read, is of no known family, or has tensors too many or too few, or of another kind
            than floating-point; all are listed.
    """
    src, dst = source_and_target(src, dst)
    source = read(src, ema=ema, trust=trust)
    family, release = identify(source.tensors, source.framework)
    target, done = _ours(family, release, source.tensors, family.recognise)
    origin = {'source': printable(src.name), 'sha256': sha256_of(src)}
    state, report = _finished(family, release, target, done, source, origin, release.settings)
    write_checkpoint(dst, state, report.meta)
    return report


@dataclass(frozen=True)
class Converted:
    """What :func:`convert_model` made; tensors may share memory with the model's.

    Attributes:
        backbone: config of the backbone, as in the report.
        weights: the backbone's state dict.
        head: ``fc.weight`` (classes, C) and ``fc.bias`` (classes); empty where there is no head.
        report: what was taken and left.
    """

    backbone: dict[str, Any]
    weights: dict[str, Tensor]
    head: dict[str, Tensor]
    report: ConversionReport


def convert_model(model: nn.Module) -> Converted:
    """Convert a published model in memory, one of timm's for instance, without a file.

    ``backbone = MODELS.build(converted.backbone)`` builds what
    ``backbone.load_state_dict(converted.weights)`` loads strictly. Tensors keep their dtype.

    Of gMLP, ResMLP, MLP-Mixer and Vision Permutator the model is looked at for what changes its
    outputs and no tensor tells: the kind of its GELU, the epsilon of gMLP's gate norm and that of
    MLP-Mixer's norms go into the config, and so does a trained grid that is no square. Whatever
    else its parts compute that ours do not is an error. Models of other families are taken by their
    names alone, as files are, and ``report.notes`` says so.

    Args:
        model: a module whose state dict has the names of a published PyTorch release, wrapped for
            data-parallel training or compiled or neither.

    Raises:
        TypeError: for anything but a module.
        UserError: for a model of no known family, with tensors too many or too few, or with an
            activation, an epsilon or a kind of layer that we do not have; it is named.
    """
    model = unwrapped(model)
    source = Source(dict(model.state_dict()), 'pytorch', 'model')
    check_weights(source.tensors, meta=True)
    family, release = identify(source.tensors, source.framework)
    inspected = family.inspected
    recognise = family.recognise
    grid = trained_grid(model) if inspected and inspected.recognise else None
    if inspected and inspected.recognise and grid:
        recognise = partial(inspected.recognise, grid=grid)
    target, done = _ours(family, release, source.tensors, recognise)
    if inspected:
        settings, notes = settings_of(model, inspected, done.sources)
        if inspected.check:
            inspected.check(model, target)
    else:
        settings, notes = {}, ('took the model by its names alone, looked at none of its parts',)
    origin = {'source': f'{type(model).__module__}.{type(model).__qualname__}'}
    settings = {**release.settings, **settings}
    state, report = _finished(
        family, release, target, done, replace(source, notes=notes), origin, settings
    )
    weights, head = (
        {k.removeprefix(lead): v for k, v in state.items() if k.startswith(lead)}
        for lead in ('backbone.', 'head.')
    )
    return Converted(report.backbone, weights, head, report)


def _finished(
    family: Family,
    release: Release,
    target: Target,
    done: Applied,
    source: Source,
    origin: Mapping[str, str],
    settings: Mapping[str, Any],
) -> tuple[dict[str, Tensor], ConversionReport]:
    """Tensors as they are to be loaded, and the report."""
    state, notes = {name: done.tensors[name] for name in target.expected}, source.notes
    if target.fold:
        state = target.fold(state)
        notes += (f'folded {len(target.expected)} tensors into {len(state)}, for inference',)
    damage = not_finite_line(not_finite(state))
    if damage:
        notes += (damage,)
    norms = (re.match(r'backbone\.out_norms\.(\d+)\.', name) for name in state)
    filled = {why: [n for n in names if n in state] for why, names in done.filled.items()}
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
        dropped=done.dropped,
        filled={why: names for why, names in filled.items() if names},
        notes=notes,
        out_indices=tuple(sorted({int(found[1]) for found in norms if found})),
    )


def _ours(
    family: Family,
    release: Release,
    tensors: Mapping[str, Tensor],
    recognise: Callable[[Shapes], Target],
) -> tuple[Target, Applied]:
    """The model of a release's tensors, and what the rules make of them."""
    dropped: dict[str, list[str]] = {}
    sources = {name: name for name in tensors}
    for rules in release.names:
        named = apply(rules, tensors)
        tensors, dropped = named.tensors, _joined(dropped, named.dropped)
        sources = {name: sources[source] for name, source in named.sources.items()}
    target = recognise({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    rules = family.rules if target.rules is None else target.rules
    done = apply(rules, tensors, target.expected, release.fills)
    return target, replace(
        done,
        dropped=_joined(dropped, done.dropped),
        sources={name: sources[source] for name, source in done.sources.items()},
    )


def _joined(first: Mapping[str, list[str]], then: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {why: [*first.get(why, ()), *then.get(why, ())] for why in {**first, **then}}
