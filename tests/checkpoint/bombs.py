"""Small files that would take much memory or time, read in a process of their own.

Run with the name of a folder to write them in: prints a line of JSON for each, with what reading it
ended in, its size, the memory that reading took and the seconds.
"""

import io
import json
import pickle
import resource
import struct
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import torch

from mmwave.convert.readers import read

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.checkpoint.files import Calls, status

HEAD = b'\x80\x04'
_DEEP = 100_000


def torch_zip(pickled: bytes, storages=(), **options) -> bytes:
    """Return an archive of torch with a pickle of our own."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', **options) as archive:
        archive.writestr('a/data.pkl', pickled)
        archive.writestr('a/byteorder', b'little')
        for key, content in dict(storages).items():
            archive.writestr(f'a/data/{key}', content)
    return file.getvalue()


def saved(content, **options) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **options)
    return file.getvalue()


def legacy(content) -> bytes:
    return saved(content, _use_new_zipfile_serialization=False)


def halved(key: str, times: int) -> bytes:
    """Return a pickle of a tuple of a tuple of itself, ``times`` deep, for the %s in ``key``."""
    body = b'K\x01K\x02\x86' + b''.join(b'q%c0h%ch%c\x86' % (i, i, i) for i in range(times))
    return HEAD + key.encode('latin1').replace(b'%s', body) + b'.'


def equal_hashes(kind: str, end: bytes, count: int = 20_000) -> bytes:
    """Return a pickle of a set or a dict of pairs of integers of one hash, as CPython makes it."""
    one, two, five = 11400714785074694791, 14029467366897019727, 2870177450012600261
    every, keys, first = (1 << 64) - 1, [], 0
    while len(keys) < count:
        first += 1
        lane = five + first * two & every
        lane = (lane << 31 | lane >> 33) * one & every
        second = (12345 - lane) * pow(two, -1, 1 << 64) & every
        if second < 1 << 60:
            keys.append((first, second))
    assert len({hash(key) for key in keys}) == 1
    module = 'builtins' if kind == 'set' else 'collections'
    items = (
        b''.join(b'\x8a\x08' + number.to_bytes(8, 'little') for number in key) + end for key in keys
    )
    return HEAD + f'c{module}\n{kind}\n]('.encode() + b''.join(items) + b'e\x85R.'


def array_of(content: bytes) -> Calls:
    state = (1, (len(content),), np.dtype('u1'), False, content)
    return Calls(np._core.multiarray._reconstruct, np.ndarray, (0,), b'b', state=state)


def views(tensor: torch.Tensor, count: int) -> list[torch.Tensor]:
    return [tensor[i:] for i in range(count)]


def colliding(i: int) -> bytes:
    return b'\x8a\x0c' + (i * ((1 << 61) - 1)).to_bytes(12, 'little')


def sparse_file(names: int) -> bytes:
    entries = {
        f'{i:x}': {'dtype': 'F32', 'shape': [0], 'data_offsets': [0, 0]} for i in range(names)
    }
    head = json.dumps(entries).encode()
    return struct.pack('<Q', len(head)) + head


def field(number: int, content: bytes | int) -> bytes:
    def varint(n):
        return bytes([n & 0x7F | 0x80]) + varint(n >> 7) if n > 0x7F else bytes([n])

    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    return varint(number << 3 | 2) + varint(len(content)) + content


def mindspore(dims, content=b'', name=b'a', kind=b'Float32') -> bytes:
    tensor = b''.join(field(1, n) for n in dims) + field(2, kind) + field(3, content)
    return field(1, field(1, name) + field(2, tensor))


def mindspore_fields(count: int) -> bytes:
    """Return a value with so many unknown fields."""
    return field(1, b''.join(field(k, b'') for k in range(10, 10 + count)))


def npz(shape, content=b'', **options) -> bytes:
    head = repr({'descr': '<f4', 'fortran_order': False, 'shape': shape}).encode() + b'\n'
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w', **options) as archive:
        array = b'\x93NUMPY\x01\x00' + struct.pack('<H', len(head)) + head + content
        archive.writestr('a.npy', array)
    return file.getvalue()


def many_entries(count: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        for i in range(count):
            archive.writestr(f'{i:01000x}', b'')
    return file.getvalue()


def metadata(text: str) -> bytes:
    head = json.dumps(
        {'__metadata__': {'a': text}, 'w': {'dtype': 'F32', 'shape': [1], 'data_offsets': [0, 4]}}
    ).encode()
    return struct.pack('<Q', len(head)) + head + bytes(4)


def text_of(length: int) -> bytes:
    content = b'a' * (length - 4) + '\U0001f600'.encode()
    return HEAD + b'X' + struct.pack('<I', len(content)) + content + b'.'


CONTENT = bytes(1 << 20)
PARAMETER = b'ctorch._utils\n_rebuild_parameter\n'
MEGABYTE = 1 << 20
BOMBS = {
    # name: (content, what the error says; empty: it is read)
    'memo index': (lambda: HEAD + b'Nr' + struct.pack('<I', 0x7FFFFFFF) + b'.', 'must be a dict'),
    'bytearray': (lambda: saved({'a': Calls(bytearray, 1 << 31)}), 'bytearray of'),
    'bytearray legacy': (lambda: legacy({'a': Calls(bytearray, 1 << 31)}), 'bytearray of'),
    'bytes length': (lambda: HEAD + b'\x8e' + struct.pack('<Q', 1 << 40) + b'.', 'announces'),
    'bytearray length': (lambda: HEAD + b'\x96' + struct.pack('<Q', 1 << 40) + b'.', 'announces'),
    'text length': (lambda: HEAD + b'\x8d' + struct.pack('<Q', 1 << 62) + b'.', 'announces'),
    'short length': (lambda: HEAD + b'B' + struct.pack('<I', 0xFFFFFFFF) + b'.', 'announces'),
    'frame': (lambda: HEAD + b'\x95' + struct.pack('<Q', 1 << 62) + b'N.', 'frame'),
    'stride 0': (lambda: saved({'a': torch.ones(1).expand(1 << 40)}), 'declares tensors'),
    'stride 0 legacy': (lambda: legacy({'a': torch.ones(1).expand(1 << 40)}), 'declares tensors'),
    'many views': (lambda: saved(views(torch.ones(MEGABYTE), 9)), 'declares tensors'),
    'many arrays': (
        lambda: pickle.dumps([array_of(CONTENT) for _ in range(9)], protocol=4),
        'declares tensors',
    ),
    'deflated pickle': (
        lambda: torch_zip(HEAD + b'N0' * 10_000_000 + b'N.', compression=zipfile.ZIP_DEFLATED),
        'is compressed',
    ),
    'npz deflated': (
        lambda: npz((1 << 26,), bytes(1 << 28), compression=zipfile.ZIP_DEFLATED),
        'declare 268435',
    ),
    'npz shape': (lambda: npz((1 << 40,)), 'has 0 bytes'),
    'npz shape 0': (lambda: npz((1 << 62, 4, 0)), 'no tensor has'),
    'npz header': (lambda: npz('(' * 9000), 'damaged'),
    'directory': (lambda: many_entries(9000), 'directory takes more'),
    'shared key': (lambda: halved('}%sNs', 40), 'tuple of tuples'),
    'shared key in a set': (lambda: halved('\x8f(%s\x90', 40), 'tuple of tuples'),
    'shared value': (lambda: halved(']%sa', 40), 'refers to itself'),
    'shared lists': (
        lambda: HEAD + b'N' + b''.join(b'q%c0](h%ch%ce' % (i, i, i) for i in range(40)) + b'.',
        'refers to itself',
    ),
    'colliding keys': (
        lambda: (
            HEAD
            + b'}('
            + b''.join(
                b'\x8a\x0c' + (i * ((1 << 61) - 1)).to_bytes(12, 'little') + b'N'
                for i in range(40_000)
            )
            + b'u.'
        ),
        'is the key',
    ),
    'deep lists': (lambda: HEAD + b']' * _DEEP + b'a' * (_DEEP - 1) + b'.', 'levels deep'),
    'deep tuples': (lambda: HEAD + b')' + b'\x85' * _DEEP + b'.', 'levels deep'),
    'deep dicts': (lambda: HEAD + b'}' + b'K\x01}' * _DEEP + b's' * _DEEP + b'.', 'levels deep'),
    'marks': (lambda: HEAD + b'(' * (3 * MEGABYTE) + b'.', 'bytes of memory'),
    'lists': (lambda: HEAD + b']' * (3 * MEGABYTE) + b'.', 'bytes of memory'),
    'sets': (lambda: HEAD + b'\x8f' * (3 * MEGABYTE) + b'.', 'bytes of memory'),
    'memo': (lambda: HEAD + b'N' + b'\x94' * (3 * MEGABYTE) + b'.', 'bytes of memory'),
    'calls': (
        lambda: torch_zip(HEAD + PARAMETER + b'q\x00(NNNtq\x01' + b'h\x00h\x01R' * MEGABYTE + b'.'),
        'bytes of memory',
    ),
    'tuples of a list': (
        lambda: (
            HEAD
            + b']('
            + b'N' * 100_000
            + b'eq\x00'
            + b'c__builtin__\ntuple\nq\x01'
            + b'h\x01h\x00\x85R' * 1000
            + b'.'
        ),
        'bytes of memory',
    ),
    # The largest that passes the count of memory, and more.
    'empty lists': (
        lambda: torch_zip(HEAD + b'](' + b']' * 500_000 + b'e.'),
        'a checkpoint must be a dict',
    ),
    'more empty lists': (
        lambda: torch_zip(HEAD + b'](' + b']' * MEGABYTE + b'e.'),
        'out of proportion to its size',
    ),
    'colliding tuples in a set': (lambda: torch_zip(equal_hashes('set', b'\x86')), 'have one hash'),
    'colliding tuples in a dict': (
        lambda: torch_zip(equal_hashes('OrderedDict', b'\x86N\x86')),
        'have one hash',
    ),
    'wide text': (lambda: text_of(90 * MEGABYTE), 'bytes of memory'),
    'mindspore dims': (lambda: mindspore([1 << 63, 0]), 'has a shape of 2 dimensions'),
    'mindspore many dims': (lambda: mindspore([1] * 100_000, bytes(4)), 'more than 64 dimensions'),
    'mindspore tensors': (
        lambda: b''.join(mindspore([0], name=b'%06x' % i) for i in range(150_000)),
        'more than 100000 tensors',
    ),
    'safetensors metadata': (lambda: metadata('[' * _DEEP), ''),
    'safetensors object': (lambda: metadata('{"a":' * _DEEP), ''),
    'safetensors deep object': (lambda: metadata('{"a":' + '[' * 500 + ']' * 500 + '}'), ''),
    'safetensors many lists': (
        lambda: metadata('{"a":[' + '[],' * 2_500_000 + '[]]}'),
        '',
    ),
    'mindspore fields': (lambda: mindspore_fields(400_000), 'without a name or a tensor'),
    'safetensors header': (lambda: sparse_file(200_000), 'its header takes'),
    'dots in a name': (
        lambda: saved({'a': torch.ones(1), '.' * 20_000: torch.ones(1)}),
        'more than 1000',
    ),
    'long integer': (
        lambda: HEAD + b'\x8b' + struct.pack('<i', 9000) + b'\x7f' * 9000 + b'.',
        'LONG4',
    ),
    'bare integer': (lambda: HEAD + b'\x8a\xff' + b'\x7f' * 255 + b'.', 'must be a dict'),
}


def main() -> None:
    folder = Path(sys.argv[1])
    for name, (content, _) in BOMBS.items():
        path = folder / 'bomb'
        path.write_bytes(content())
        del content
        size = path.stat().st_size
        Path('/proc/self/clear_refs').write_text('5')  # VmHWM begins again
        before, start = status('VmRSS:'), time.perf_counter()
        # Address space, of which threads and allocators reserve some without using it.
        limit = status('VmSize:') + 3 * size + (600 << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        try:
            read(path)
            found = ['', '']
        except Exception as error:
            found = [type(error).__name__, str(error)]
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
        seconds, memory = time.perf_counter() - start, status('VmHWM:') - before
        print(json.dumps([name, *found, size, memory, seconds]), flush=True)


if __name__ == '__main__':
    main()
