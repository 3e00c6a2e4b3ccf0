"""Weight files into host memory; the format is detected from their content."""

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import torch
from torch.serialization import MAGIC_NUMBER

from mmwave.errors import UserError, printable, printable_path

from .missing import MissingFileError
from .nodes import Builder
from .pickles import damaged, explained_trusted, load_arrays
from .torch_files import ZIP_MAGIC, check_sums, load_restricted

StrPath = str | os.PathLike[str]
"""A local path."""

_PICKLE_MAGIC = b'\x80'  # of protocol 2 or later
_ZIP_HEADER, _ZIP_NAME_LENGTH = 30, slice(26, 28)  # bytes of a zip entry's header, up to its name
_SAFETENSORS_HEADER = 8  # bytes of the little-endian length that such a file begins with
_MAX_SAFETENSORS_HEADER = 8 << 20  # bytes: 80,000 tensors
_MAX_DECODED = 1 << 20  # characters of all: the 21,841 classes of ImageNet-21k have 400,000
# Torch's files without zip begin with a pickle of one number. In front of it are at most two bytes
# of the protocol and nine of a frame.
_TORCH_MAGIC = b'\x8a\x0a' + MAGIC_NUMBER.to_bytes(10, 'little')
_TORCH_MAGIC_ENDS = 2 + 9 + len(_TORCH_MAGIC)


def read_checkpoint(path: StrPath, *, trust: bool = False) -> Any:
    """Read a torch or safetensors file into host memory.

    Besides tensors and plain Python data a torch file may hold ``argparse.Namespace``, NumPy arrays
    and scalars of numbers or text, mmengine's ``HistoryBuffer`` and the dict in a ``CfgNode`` of
    yacs: what the checkpoints of timm, mmengine and the training scripts made after Swin's hold.
    An ``OrderedDict`` comes as a dict, without attributes but the ``_metadata`` of a state dict.

    What the file declares is checked against its size before anything is made of it: reading uses
    at most three times its size and 200 MB, and a file that declares more is damaged. Checksums of
    zip archives are checked.

    Args:
        path: a local file; its format is detected from its content.
        trust: read whatever the pickle asks for, which may run any code its author put in.

    Returns:
        What was saved; for safetensors ``{'state_dict': {name: tensor}, 'meta': {key: text}}``,
        where a text that is a JSON object is decoded.

    Raises:
        MissingFileError: where there is no such file.
        UntrustedCheckpointError: where the file asks for anything else and ``trust`` is false.
        UserError: where the file cannot be opened, is damaged or of another format, Paddle's or
            NumPy's for one, or holds a sparse, quantised, nested or meta tensor.
    """
    kind = container_of(path)
    path = Path(path).expanduser()
    if kind == 'safetensors':
        return _read_safetensors(path)
    if kind == 'other':
        raise damaged(path, 'neither a torch nor a safetensors file')
    if kind == 'pickle':
        load_arrays(path)  # what it asks for, or where it is damaged, is said first
        raise UserError(
            f'{printable_path(path)} is a pickle but no torch file; '
            'tools/convert_checkpoint.py reads those of Paddle'
        )
    if kind == 'npz':
        raise UserError(
            f'{printable_path(path)} is an archive of NumPy arrays, no torch file; '
            'tools/convert_checkpoint.py reads those of JAX models'
        )
    if trust:
        with explained_trusted(path):
            check_sums(path)  # torch does not
            return torch.load(path, map_location='cpu', weights_only=False)
    return load_restricted(path)


def container_of(path: StrPath) -> Literal['torch', 'safetensors', 'npz', 'pickle', 'other']:
    """Return the format of a weight file, detected from its first bytes.

    ``'pickle'`` is a pickle without torch's header. An ``'npz'`` is a zip archive of NumPy arrays;
    torch's own archives have no such entry in front.

    Raises:
        MissingFileError: where there is no such file.
        UserError: where it cannot be opened.
    """
    try:
        path = Path(path).expanduser()
        if path.is_file():
            return _container_of(path)
    except (OSError, RuntimeError, ValueError) as error:
        # No permission, a name that is too long, no such home, a NUL in the name.
        reason = getattr(error, 'strerror', None) or printable(error)
        raise UserError(f'{printable_path(path)} cannot be read: {reason}') from error
    raise MissingFileError(f'no checkpoint file {printable_path(path)}')


def _container_of(path: Path) -> Literal['torch', 'safetensors', 'npz', 'pickle', 'other']:
    with path.open('rb') as file:
        head = file.read(_TORCH_MAGIC_ENDS)
    length = int.from_bytes(head[:_SAFETENSORS_HEADER], 'little')
    if head[_SAFETENSORS_HEADER:][:1] == b'{' and length <= path.stat().st_size:
        return 'safetensors'
    if head.startswith(ZIP_MAGIC):
        return 'npz' if _first_entry(path).endswith(b'.npy') else 'torch'
    if head.startswith(_PICKLE_MAGIC):
        return 'torch' if _TORCH_MAGIC in head else 'pickle'
    return 'other'


def _first_entry(path: Path) -> bytes:
    """Return the name of the first file in a zip archive, as the header before its content says."""
    with path.open('rb') as file:
        head = file.read(_ZIP_HEADER)
        return file.read(int.from_bytes(head[_ZIP_NAME_LENGTH], 'little'))


def sha256_of(path: StrPath) -> str:
    """Return the SHA-256 of a file's content, 64 hexadecimal digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    try:
        with path.open('rb') as head:
            length = int.from_bytes(head.read(_SAFETENSORS_HEADER), 'little')
        if length > _MAX_SAFETENSORS_HEADER:
            raise ValueError(f'its header takes {length} bytes')
        with safe_open(path, framework='pt') as file:
            texts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # SafetensorError, or of a type that torch does not have
        raise damaged(path, str(error) or type(error).__name__) from error
    return {'state_dict': state, 'meta': _decoded(texts)}


def _decoded(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the dicts that texts are in JSON, shortest first and no more than is safe to hold."""
    meta: dict[str, Any] = dict(texts)
    left = _MAX_DECODED
    for key, text in sorted(texts.items(), key=lambda item: len(item[1])):
        if not text.lstrip().startswith('{'):
            continue
        left -= len(text)
        if left < 0:
            break
        with suppress(ValueError, RecursionError):  # it stays a text
            meta[key] = Builder(len(text)).build(json.loads(text))
    return meta
