"""Files of every format with bytes changed at random, read one after another.

Run with a folder and the name of a format: prints, as JSON, how many were refused, read as they
were and read otherwise, the memory that reading took, and how every other error was made.
"""

import argparse
import io
import json
import random
import resource
import signal
import sys
import zipfile
from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save
from torch import Tensor, nn

from mmwave.checkpoint import read_checkpoint
from mmwave.convert.readers import read
from mmwave.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.checkpoint.files import status
from tests.convert.published import mindspore_entry, write_mindspore, write_npz, write_paddle

MUTATIONS = 200
SECONDS = 20
NUMBERS = torch.arange(60.0)
STATE = {f'layers.{i}.weight': NUMBERS[i : i + 40].reshape(5, 8).clone() for i in range(8)}
PLAIN = (
    *(dict, OrderedDict, Counter, list, tuple, set, str, bytes, bytearray, int, float, complex),
    *(bool, type(None), Tensor, nn.Parameter, torch.dtype, torch.device, torch.Size, np.ndarray),
    *(np.generic, np.dtype, argparse.Namespace, HistoryBuffer),
)


def training() -> dict:
    module = nn.BatchNorm2d(3)
    return {
        'state_dict': OrderedDict(STATE) | module.state_dict(),
        'optimizer': {'state': {0: {'step': 1, 'exp_avg': NUMBERS}}, 'param_groups': [{'lr': 0.1}]},
        'meta': {'epoch': 3, 'CLASSES': ('a', 'b'), 'seed': np.int64(3), 'mean': np.ones(3)},
        'history': HistoryBuffer([1.0, 2.0], [1, 1]),
        'args': argparse.Namespace(lr=0.1),
        'parameter': nn.Parameter(NUMBERS),
        'counter': Counter([1, 1, 2]),
    }


def torch_file(path: Path, **options) -> None:
    torch.save(training(), path, **options)


def unchecked(path: Path) -> None:
    """Write an archive whose data.pkl may be changed: ``mutated`` recomputes its checksum."""
    torch_file(path)


FORMATS = {
    'torch-zip': torch_file,
    'torch-zip-pickle': torch_file,
    'torch-legacy': lambda path: torch_file(path, _use_new_zipfile_serialization=False),
    'safetensors': lambda path: path.write_bytes(save(STATE, {'a': '{"b": [1]}'})),
    'npz': lambda path: write_npz(path, STATE),
    'npz-header': lambda path: write_npz(path, STATE),
    'mindspore': lambda path: write_mindspore(path, [mindspore_entry(*i) for i in STATE.items()]),
    'paddle': lambda path: write_paddle(path, STATE),
}


def changed(content: bytes, chance: random.Random, limit: int | None = None) -> bytes:
    """Return ``content`` with some of its first bytes changed, left out, repeated or cut off."""
    data = bytearray(content)
    end = min(limit or len(data), len(data))
    for _ in range(chance.choice((1, 1, 2, 8))):
        at, kind = chance.randrange(end), chance.randrange(6)
        if kind == 0:
            data[at] = chance.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 2:
            data[at : at + 4] = chance.choice((b'\xff' * 4, b'\0' * 4, b'\xff\xff\xff\x7f'))
        elif kind == 3:
            del data[at : at + chance.randrange(1, 9)]
        elif kind == 4:
            data[at:at] = data[at : at + chance.randrange(1, 33)]
        elif chance.random() < 0.2:
            del data[at:]
        end = min(end, len(data)) or 1
        if not data:
            break
    return bytes(data)


def mutated(content: bytes, form: str, chance: random.Random) -> bytes:
    """Return a mutation of a file, for some forms inside of an archive whose checksums hold."""
    inner = {'torch-zip-pickle': '/data.pkl', 'npz-header': '.npy'}.get(form)
    if inner is None:
        # Half of them in the first bytes, where headers are.
        return changed(content, chance, chance.choice((None, 400)))
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(file, 'w') as new:
        names = [name for name in old.namelist() if name.endswith(inner)]
        chosen = chance.choice(names)
        for name in old.namelist():
            data = old.read(name)
            limit = 128 if form == 'npz-header' else None
            new.writestr(name, changed(data, chance, limit) if name == chosen else data)
    return file.getvalue()


def check_plain(value, depth: int = 0) -> None:
    """Raise unless ``value`` is made of nothing but the types of ``PLAIN``."""
    exact = (np.generic, np.dtype)
    assert type(value) in PLAIN or isinstance(value, exact), type(value)
    assert depth < 110
    if isinstance(value, dict):
        hidden = getattr(value, '__dict__', {})
        assert hidden.keys() <= {'_metadata'}
        for key, item in value.items():
            check_plain(key, depth + 1)
            check_plain(item, depth + 1)
    elif isinstance(value, list | tuple | set):
        for item in value:
            check_plain(item, depth + 1)
    elif isinstance(value, argparse.Namespace):
        check_plain(vars(value), depth + 1)
    elif isinstance(value, Tensor):
        value.clone()  # touches all of its memory
        assert not vars(value)


def main() -> None:
    folder, form = Path(sys.argv[1]), sys.argv[2]
    path = folder / form
    FORMATS[form](path)
    whole = path.read_bytes()
    readers = (
        [read] if form in ('npz', 'npz-header', 'mindspore', 'paddle') else [read, read_checkpoint]
    )
    for reader in readers:
        reader(path)
    chance, counts, faults, most = random.Random(form), Counter(), [], 0
    largest = len(whole)
    Path('/proc/self/clear_refs').write_text('5')
    before = status('VmRSS:')
    resource.setrlimit(resource.RLIMIT_AS, (status('VmSize:') + (1 << 30),) * 2)
    for number in range(MUTATIONS):
        content = mutated(whole, form, chance)
        largest = max(largest, len(content))
        path.write_bytes(content)
        for reader in readers:
            signal.alarm(SECONDS)
            try:
                found = reader(path)
                check_plain(found if reader is read_checkpoint else found.tensors)
                counts['same' if content == whole else 'read'] += 1
            except UserError as error:
                counts['refused'] += 1
                if not str(error).isprintable():
                    faults.append(f'{number}: not one line: {error!r}')
            except BaseException as error:
                faults.append(f'{number}: {type(error).__name__}: {error}')
            signal.alarm(0)
    most = status('VmHWM:') - before
    print(json.dumps({'counts': counts, 'memory': most, 'size': largest, 'faults': faults}))


if __name__ == '__main__':
    main()
