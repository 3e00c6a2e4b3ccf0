"""Weight files into host memory, and mmengine's loader made to read them so."""

import hashlib
import json
import os
import pickle
from pathlib import Path
from typing import Any, Literal

import torch
from torch.serialization import MAGIC_NUMBER

from mmwave.errors import UserError

from .pickles import PICKLE_MAGIC, ZIP_MAGIC, damaged, load_arrays, load_restricted

StrPath = str | os.PathLike[str]
"""A local path."""

_ZIP_HEADER, _ZIP_NAME_LENGTH = 30, slice(26, 28)  # bytes of a zip entry's header, up to its name
_SAFETENSORS_HEADER = 8  # bytes of the little-endian length that such a file begins with
# Torch's files without zip begin with a pickle of one number. In front of it are at most two bytes
# of the protocol and nine of a frame.
_TORCH_MAGIC = b'\x8a\x0a' + MAGIC_NUMBER.to_bytes(10, 'little')
_TORCH_MAGIC_ENDS = 2 + 9 + len(_TORCH_MAGIC)


def read_checkpoint(path: StrPath, *, trust: bool = False) -> Any:
    """Read a torch or safetensors file into host memory.

    Besides tensors and plain Python data a torch file may hold ``argparse.Namespace``, NumPy arrays
    and scalars of numbers or text, mmengine's ``HistoryBuffer`` and the dict in a ``CfgNode`` of
    yacs: what the checkpoints of timm, mmengine and the training scripts made after Swin's hold.

    Args:
        path: a local file; its format is told by its content.
        trust: read whatever the pickle asks for, which may run any code its author put in.

    Returns:
        What was saved; for safetensors ``{'state_dict': {name: tensor}, 'meta': {key: text}}``,
        where a text that is a JSON object is decoded.

    Raises:
        FileNotFoundError: where there is no such file.
        UntrustedCheckpointError: where the file asks for anything else and ``trust`` is false.
        ValueError: where the file is damaged or of another format, Paddle's or NumPy's for one.
    """
    path = Path(path).expanduser()
    kind = container_of(path)
    if kind == 'safetensors':
        return _read_safetensors(path)
    if kind == 'other':
        raise damaged(path, 'neither a torch nor a safetensors file')
    if kind == 'pickle':
        load_arrays(path)  # what it asks for, or where it is damaged, is said first
        raise UserError(
            f'{path} is a pickle but no torch file; tools/convert_checkpoint.py reads those of '
            'Paddle'
        )
    if kind == 'npz':
        raise UserError(
            f'{path} is an archive of NumPy arrays, no torch file; tools/convert_checkpoint.py '
            'reads those of JAX models'
        )
    if trust:
        try:
            return torch.load(path, map_location='cpu', weights_only=False)
        except (EOFError, OSError, RuntimeError, pickle.UnpicklingError) as error:
            raise damaged(path, str(error)) from error
    return load_restricted(path)


def container_of(path: StrPath) -> Literal['torch', 'safetensors', 'npz', 'pickle', 'other']:
    """The format of a weight file, told by its first bytes; ``'pickle'`` is one without torch's.

    An ``'npz'`` is a zip archive of NumPy arrays; torch's own archives have no such entry in front.

    Raises:
        FileNotFoundError: where there is no such file.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f'no checkpoint file {path}')
    with path.open('rb') as file:
        head = file.read(_TORCH_MAGIC_ENDS)
    length = int.from_bytes(head[:_SAFETENSORS_HEADER], 'little')
    if head[_SAFETENSORS_HEADER:][:1] == b'{' and length <= path.stat().st_size:
        return 'safetensors'
    if head.startswith(ZIP_MAGIC):
        return 'npz' if _first_entry(path).endswith(b'.npy') else 'torch'
    if head.startswith(PICKLE_MAGIC):
        return 'torch' if _TORCH_MAGIC in head else 'pickle'
    return 'other'


def _first_entry(path: Path) -> bytes:
    """Name of the first file in a zip archive, as the header in front of its content has it."""
    with path.open('rb') as file:
        head = file.read(_ZIP_HEADER)
        return file.read(int.from_bytes(head[_ZIP_NAME_LENGTH], 'little'))


def sha256_of(path: StrPath) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits."""
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


def register_safe_loader(trust: bool = False) -> None:
    """Have mmengine read checkpoints through :func:`read_checkpoint` in this process.

    Covers local files and what mmengine downloads over http(s), its model zoos included:
    ``load_from``, resuming and ``init_cfg``. Object stores (``s3://``, ``petrel://``, ``pavi://``)
    raise ``ValueError``. Of a checkpoint's ``meta`` the text ``config``, which mmengine would run
    as Python when resuming, is left out.

    Args:
        trust: read whatever the files ask for; see :func:`read_checkpoint`.
    """
    from mmengine.runner import checkpoint as mm

    # mmengine logs the part of the name behind ``load_from_``. Tensors stay on the host whatever
    # the map_location says: modules and optimizers copy them to their own device.
    def load_from_local(filename: str, map_location: Any = None) -> Any:
        content = read_checkpoint(filename, trust=trust)
        meta = content.get('meta') if isinstance(content, dict) else None
        if not trust and isinstance(meta, dict):
            meta.pop('config', None)
        return content

    def load_from_http(filename: str, map_location: Any = None, **_: Any) -> Any:
        return load_from_local(_downloaded(filename))

    def load_from_store(filename: str, map_location: Any = None, **_: Any) -> Any:
        raise ValueError(f'{filename} cannot be read safely: download it and name the local file')

    register = mm.CheckpointLoader.register_scheme
    register('', load_from_local, force=True)
    register(['http://', 'https://'], load_from_http, force=True)
    register([r'(\S+\:)?s3://', r'(\S+\:)?petrel://', 'pavi://'], load_from_store, force=True)
    mm.load_from_http = load_from_http  # the schemes of mmengine's model zoos call it by this name


def _downloaded(url: str) -> str:
    """The local copy of ``url`` in torch's hub cache, fetched where it is not there yet."""
    folder = Path(torch.hub.get_dir(), 'checkpoints')
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / url.split('?')[0].rstrip('/').rsplit('/', 1)[-1]
    if not target.is_file():
        torch.hub.download_url_to_file(url, str(target), progress=False)
    return str(target)


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt') as file:
            texts = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise damaged(path, str(error)) from error
    meta = {k: json.loads(v) if _is_json_object(v) else v for k, v in texts.items()}
    return {'state_dict': state, 'meta': meta}


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
