"""A published file in, a file that mmwave loads strictly out."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mmwave import __version__
from mmwave.checkpoint import sha256_of

from .index import identify
from .readers import read
from .rules import apply

SUFFIXES = ('.pth', '.safetensors')


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
    The target appears under its name when it is complete.

    Args:
        src: torch, safetensors or MindSpore file.
        dst: ``.pth`` or ``.safetensors``, replaced where it exists.
        ema: take the averaged weights of a training checkpoint where it has them.
        trust: see :func:`mmwave.checkpoint.read_checkpoint`.

    Raises:
        FileNotFoundError: where there is no ``src``, or no folder for ``dst``.
        ValueError: for another suffix of ``dst``, ``dst`` being ``src``, or a file that cannot be
            read, is of no known family, or has tensors too many or too few; all are listed.
    """
    src, dst = Path(src).expanduser(), Path(dst).expanduser()
    if dst.suffix not in SUFFIXES:
        raise ValueError(f'{dst} must end in {" or ".join(SUFFIXES)}')
    if not dst.parent.is_dir():
        raise FileNotFoundError(f'no folder {dst.parent} to write {dst.name} in')
    if src.resolve() == dst.resolve():
        raise ValueError(f'{dst} is the source itself')
    source = read(src, ema=ema, trust=trust)
    family = identify(source.tensors)
    if source.framework not in family.releases:
        raise ValueError(
            f'{src} is a {source.framework} file; {family.name} is known from '
            f'{", ".join(family.releases)}'
        )
    release = family.releases[source.framework]
    tensors, dropped = source.tensors, {}
    if release.names:
        named = apply(release.names, tensors)
        tensors, dropped = named.tensors, named.dropped
    target = family.recognise({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    done = apply(family.rules, tensors, target.expected, release.fills)
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
    _write(dst, {name: done.tensors[name] for name in target.expected}, meta)
    return ConversionReport(
        meta=meta,
        read=len(source.tensors),
        written=len(done.tensors),
        dropped={**dropped, **done.dropped},
        filled=done.filled,
        notes=source.notes,
    )


def _write(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    # Cloned, or torch would save all of a storage that a tensor is only a part of.
    state = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        with part.open('wb') as file:
            if path.suffix == '.safetensors':
                texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in meta.items()}
                file.write(save(state, metadata=texts))
            else:
                torch.save({'meta': dict(meta), 'state_dict': state}, file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
