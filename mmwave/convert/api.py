"""A published file in, a file that mmwave loads strictly out."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from mmwave import __version__
from mmwave.checkpoint import check_target, sha256_of, write_checkpoint

from .family import Family, Release, Target
from .index import identify
from .readers import read
from .rules import Applied, apply


@dataclass(frozen=True)
class ConversionReport:
    """What :func:`convert_file` read and wrote.

    Attributes:
        meta: the metadata in the written file, see :func:`convert_file`.
        read: number of tensors in the source.
        written: number of tensors in the target.
        dropped: reason -> source names left out.
        filled: reason -> target names that the source has not.
        notes: what was chosen or skipped when reading.
    """

    meta: dict[str, Any]
    read: int
    written: int
    dropped: Mapping[str, list[str]]
    filled: Mapping[str, list[str]]
    notes: tuple[str, ...]

    @property
    def backbone(self) -> dict[str, Any]:
        """Config of the backbone that the weights are for."""
        return dict(self.meta['backbone'])


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
        src: torch, safetensors, MindSpore or Paddle file.
        dst: ``.pth`` or ``.safetensors``, replaced where it exists.
        ema: take the averaged weights of a training checkpoint where it has them.
        trust: see :func:`mmwave.checkpoint.read_checkpoint`.

    Raises:
        FileNotFoundError: where there is no ``src``, or no folder for ``dst``.
        ValueError: for another suffix of ``dst``, ``dst`` being ``src``, or a file that cannot be
            read, is of no known family, or has tensors too many or too few; all are listed.
    """
    src, dst = Path(src).expanduser(), Path(dst).expanduser()
    check_target(dst)
    if src.resolve() == dst.resolve():
        raise ValueError(f'{dst} is the source itself')
    source = read(src, ema=ema, trust=trust)
    family, release = identify(source.tensors, source.framework)
    target, done = _ours(family, release, source.tensors)
    state, notes = {name: done.tensors[name] for name in target.expected}, source.notes
    if target.fold:
        state = target.fold(state)
        notes += (f'folded {len(target.expected)} tensors into {len(state)}, for inference',)
    filled = {why: [n for n in names if n in state] for why, names in done.filled.items()}
    meta = {
        'source': src.name,
        'sha256': sha256_of(src),
        'family': family.name,
        'arch': target.arch,
        'framework': source.framework,
        'weights': source.weights,
        'origin': release.origin,
        'licence': release.licence,
        'mmwave_version': __version__,
        'backbone': {**target.backbone, **release.settings},
    }
    write_checkpoint(dst, state, meta)
    return ConversionReport(
        meta=meta,
        read=len(source.tensors),
        written=len(state),
        dropped=done.dropped,
        filled={why: names for why, names in filled.items() if names},
        notes=notes,
    )


def _ours(
    family: Family, release: Release, tensors: Mapping[str, Tensor]
) -> tuple[Target, Applied]:
    """The model of a release's tensors, and what the rules make of them."""
    dropped: dict[str, list[str]] = {}
    for rules in release.names:
        named = apply(rules, tensors)
        tensors, dropped = named.tensors, _joined(dropped, named.dropped)
    target = family.recognise({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    done = apply(family.rules, tensors, target.expected, release.fills)
    return target, replace(done, dropped=_joined(dropped, done.dropped))


def _joined(first: Mapping[str, list[str]], then: Mapping[str, list[str]]) -> dict[str, list[str]]:
    return {why: [*first.get(why, ()), *then.get(why, ())] for why in {**first, **then}}
