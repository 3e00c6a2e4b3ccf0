"""Weights and what is known of them into a file."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from mmwave.errors import UserError

SUFFIXES = ('.pth', '.safetensors')


def check_target(path: Path) -> None:
    """Raise unless a weight file can be written to ``path``.

    Raises:
        FileNotFoundError: where its folder is missing.
        ValueError: for another suffix than those of :data:`SUFFIXES`.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f'{path} must end in {" or ".join(SUFFIXES)}')
    if not path.parent.is_dir():
        raise FileNotFoundError(f'no folder {path.parent} to write {path.name} in')


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write ``state_dict`` and ``meta``; the file appears under its name when it is complete.

    Args:
        path: ``.pth`` or ``.safetensors``, replaced where it exists. In a safetensors file the
            metadata are texts: what is no text is written as JSON.
        tensors: name -> tensor.
        meta: what is known of them.

    Raises:
        FileNotFoundError: where the folder is missing.
        ValueError: for another suffix.
    """
    check_target(path)
    # Cloned, or torch would save all of a storage that a tensor is only a part of.
    state = {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}
    part = path.with_name(f'.{path.name}.{os.getpid()}.part')
    try:
        with part.open('wb') as file:
            if path.suffix == '.safetensors':
                texts = {k: v if isinstance(v, str) else _json(v) for k, v in meta.items()}
                file.write(save(state, metadata=texts))
            else:
                torch.save({'meta': dict(meta), 'state_dict': state}, file)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _json(value: Any) -> str:
    # Arrays and scalars of NumPy, which data sets' metadata may hold.
    return json.dumps(value, default=lambda v: v.tolist())
