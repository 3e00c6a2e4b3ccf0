"""Files that the tests of reading write, and the memory that reading uses."""

import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file


class Calls:
    """Pickles to ``function(*arguments)``: what reading it in full would run."""

    def __init__(self, function, *arguments, state=None):
        self.recipe = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.recipe


def torch_file(zipped=True):
    content = io.BytesIO()
    saved = {'state_dict': {'a': torch.ones(300)}, 'sizes': np.ones(2)}
    torch.save(saved, content, _use_new_zipfile_serialization=zipped)
    return content.getvalue()


def safetensors_file(folder):
    save_file({'a': torch.ones(300)}, folder / 'whole')
    return (folder / 'whole').read_bytes()


def status(name: str) -> int:
    """Return the bytes of memory of this process that Linux lists under ``name``."""
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) << 10


def flip_bit(path: Path) -> None:
    """Change a bit in the middle of the largest record of a checkpoint in torch's format."""
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        record = max(archive.infolist(), key=lambda entry: entry.file_size)
    lengths = content[record.header_offset + 26 : record.header_offset + 30]
    names = int.from_bytes(lengths[:2], 'little') + int.from_bytes(lengths[2:], 'little')
    content[record.header_offset + 30 + names + record.file_size // 2] ^= 1
    path.write_bytes(content)
