"""A pickle runs no code, and says by name what it asks for."""

import argparse
import os
import pickle
import pickletools
import sys
import types

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from torch import nn

from mmwave.checkpoint import (
    TRUST_FLAG,
    UntrustedCheckpointError,
    load_arrays,
    read_checkpoint,
)
from mmwave.errors import UserError

from .files import Calls


@pytest.fixture
def marker(tmp_path):
    return tmp_path / 'payload_ran'


def payload(marker):
    return Calls(os.system, f'touch {marker}')


SAVERS = {
    'zip': lambda content, path: torch.save(content, path),
    'legacy': lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
    'protocol-4': lambda content, path: torch.save(content, path, pickle_protocol=4),
    'plain-pickle': lambda content, path: path.write_bytes(pickle.dumps(content)),
}


@pytest.mark.parametrize('save', SAVERS.values(), ids=SAVERS)
@pytest.mark.parametrize(
    'hide',
    [
        lambda evil: evil,
        lambda evil: {'state_dict': {'a': torch.ones(1)}, 'args': argparse.Namespace(lr=evil)},
    ],
    ids=['whole', 'in-args'],
)
def test_payload_is_refused_by_name_and_runs_only_when_trusted(tmp_path, marker, save, hide):
    path = tmp_path / 'evil.pth'
    save(hide(payload(marker)), path)
    with pytest.raises(UntrustedCheckpointError) as caught:
        read_checkpoint(path)
    assert not marker.exists()
    assert 'posix.system' in str(caught.value)
    assert str(path) in str(caught.value)
    assert TRUST_FLAG in str(caught.value)
    if save is not SAVERS['plain-pickle']:  # torch.load reads no plain pickles
        read_checkpoint(path, trust=True)
        assert marker.exists()


def test_every_name_asked_for_is_listed(tmp_path):
    path = tmp_path / 'evil.pth'
    torch.save([Calls(eval, '1'), nn.Linear(1, 1), Calls(os.getcwd)], path)
    with pytest.raises(UntrustedCheckpointError) as caught:
        read_checkpoint(path)
    for name in ('builtins.eval', 'torch.nn.modules.linear.Linear', 'posix.getcwd'):
        assert name in str(caught.value)
    assert 'collections.OrderedDict' not in str(caught.value)


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        (Calls(getattr, HistoryBuffer, '__init__'), "getattr of .*, '__init__'"),
        (Calls(getattr, argparse.Namespace, 'mean'), "getattr of .*Namespace.*, 'mean'"),
        (Calls(getattr, [], 'append'), "'append'"),
        (np.array([None, 'a'], dtype=object), 'dtype object'),
        (np.zeros(1, dtype=[('x', 'f4')]), 'dtype'),
        (np.ma.masked_array([1.0]), 'numpy.ma'),
        (
            Calls(np._core.multiarray._reconstruct, np.dtype, (0,), b'b'),
            'subclass of numpy.ndarray',
        ),
    ],
)
def test_allowed_names_serve_nothing_else(tmp_path, content, named):
    path = tmp_path / 'evil.pth'
    torch.save({'a': content}, path)
    with pytest.raises(UntrustedCheckpointError, match=named):
        read_checkpoint(path)


def test_a_forged_dtype_cannot_turn_bytes_into_object_pointers(tmp_path):
    holds_objects = 0x3F
    state = (3, '<', None, None, None, -1, -1, holds_objects)
    dtype = Calls(np.dtype, 'f8', False, True, state=state)
    content = (1, (1,), dtype, False, np.float64(2.5).tobytes())
    array = Calls(np._core.multiarray._reconstruct, np.ndarray, (0,), b'b', state=content)
    torch.save({'a': array}, tmp_path / 'forged.pth')
    got = read_checkpoint(tmp_path / 'forged.pth')['a']
    assert got == [2.5]
    assert not got.dtype.hasobject


def test_functions_of_a_history_are_not_taken_from_the_file(tmp_path):
    history = HistoryBuffer([1.0], [1])
    state = {**vars(history), 'statistics_methods': {'mean': argparse.Namespace}}
    state.pop('_statistics_methods', None)
    torch.save([Calls(HistoryBuffer, state=state)], tmp_path / 'a.pth')
    got = read_checkpoint(tmp_path / 'a.pth')[0]
    assert got.statistics('mean') == 1.0
    assert HistoryBuffer._statistics_methods['mean'] is HistoryBuffer.mean


def test_the_list_is_ours_alone_and_theirs_is_kept(tmp_path):
    torch.save({'a': Calls(os.path.join, 'b')}, tmp_path / 'a.pth')
    with torch.serialization.safe_globals([os.path.join, argparse.Namespace]):
        before = set(torch.serialization.get_safe_globals())
        assert torch.load(tmp_path / 'a.pth', weights_only=True) == {'a': 'b'}
        with pytest.raises(UntrustedCheckpointError, match=r'posixpath\.join'):
            read_checkpoint(tmp_path / 'a.pth')
        assert set(torch.serialization.get_safe_globals()) == before


# -- What a refusal says -----------------------------------------------------------------------


def test_names_in_a_refusal_are_escaped_and_cut(tmp_path):
    path = tmp_path / 'a.pth'
    name = 'a\x1b[2J\r\u202e' + 'b' * 500
    content = pickle.dumps(1, protocol=4)[:2] + b''.join(
        b'\x8c' + bytes([len(part)]) + part for part in (b'evil', name[:99].encode())
    )
    path.write_bytes(content + b'\x93.')
    with pytest.raises(UntrustedCheckpointError) as caught:
        read_checkpoint(path)
    assert str(caught.value).isprintable()
    assert r'evil.a\x1b[2J\r\u202ebbb' in str(caught.value)
    path.write_bytes(b'\x80\x02cevil\n' + name.replace('\r', '').encode() + b'\n.')
    with pytest.raises(UntrustedCheckpointError, match=r'bb\.\.\. \(\d+ characters\), and a check'):
        read_checkpoint(path)


def test_many_names_are_counted(tmp_path):
    globals_ = b''.join(b'cevil\nname%d\n' % i for i in range(70))
    (tmp_path / 'a.pth').write_bytes(b'\x80\x02' + globals_ + b'.')
    with pytest.raises(UntrustedCheckpointError, match=r'evil\.name0, .*, 20 more, and'):
        read_checkpoint(tmp_path / 'a.pth')


def test_names_behind_long_texts_and_in_the_memo_are_found(tmp_path):
    long = 'x' * 70_000
    content = [long, Calls(eval, long), Calls(os.getcwd), long, Calls(os.getpid)]
    (tmp_path / 'a.pth').write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(UntrustedCheckpointError) as caught:
        read_checkpoint(tmp_path / 'a.pth')
    assert 'builtins.eval, posix.getcwd, posix.getpid, and' in str(caught.value)


def opcode(name):
    return next(op.code.encode('latin1') for op in pickletools.opcodes if op.name == name)


@pytest.mark.parametrize('protocol', [2, 4])
@pytest.mark.parametrize(
    ('content', 'named'),
    [
        (b'(' + opcode('INST') + b'os\nsystem\n.', r'posix?\.system|os\.system'),
        (b'(N' + opcode('OBJ') + b'.', 'the pickle opcode OBJ'),
        (opcode('EXT1') + b'\x01.', 'the pickle opcode EXT1'),
        (b'N)}' + opcode('NEWOBJ_EX') + b'.', 'the pickle opcode NEWOBJ_EX'),
        (opcode('PERSID') + b'x\n.', 'the pickle opcode PERSID'),
        (opcode('NEXT_BUFFER') + b'.', 'the pickle opcode NEXT_BUFFER'),
        (b'NN' + opcode('BINPERSID') + b'.', 'a persistent id'),
        (b'}}' + opcode('BUILD') + b'.', 'attributes of an object of type dict'),
        (b'ccollections\nOrderedDict\n}' + opcode('BUILD') + b'.', 'attributes of collections.Ord'),
        (b'K\x01)' + opcode('REDUCE') + b'.', 'a call of an object of type int'),
        (b'ccollections\nOrderedDict\n]' + opcode('REDUCE') + b'.', 'a call of collections.Ordere'),
        (b'}N' + opcode('APPEND') + b'.', 'items of an object of type dict'),
        (b']NN' + opcode('SETITEM') + b'.', 'entries of an object of type list'),
        (b'](N' + opcode('ADDITEMS') + b'.', 'items of an object of type list'),
        (b'c_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00rot_13tR.', "encoding 'rot_13'"),
    ],
)
def test_opcodes_that_could_do_more(tmp_path, protocol, content, named):
    (tmp_path / 'a.pth').write_bytes(b'\x80' + bytes([protocol]) + content)
    with pytest.raises(UntrustedCheckpointError, match=named):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize(
    'content',
    [
        b'.',
        b'0.',
        b't.',
        b'h\x05.',
        b'\xfe.',
        b'}(Nu.',
        b'X\x01\x00\x00\x00\xff.',
        b'cab',
        b'\x93.',
    ],
)
def test_pickles_that_are_none(tmp_path, content):
    (tmp_path / 'a.pth').write_bytes(b'\x80\x04' + content)
    with pytest.raises(UserError, match='damaged or not a checkpoint') as caught:
        read_checkpoint(tmp_path / 'a.pth')
    assert type(caught.value) is UserError


def test_trusted_files_of_packages_that_are_missing(tmp_path):
    module = types.ModuleType('package_of_another')
    module.Settings = type('Settings', (), {'__module__': 'package_of_another'})
    sys.modules['package_of_another'] = module
    try:
        torch.save({'a': module.Settings()}, tmp_path / 'a.pth')
        (tmp_path / 'a.pdparams').write_bytes(pickle.dumps({'a': module.Settings()}))
        del module.Settings
        for name, read in (('a.pth', read_checkpoint), ('a.pdparams', load_arrays)):
            with pytest.raises(UserError, match=r"needs a class.*'Settings'.*install the package"):
                read(tmp_path / name, trust=True)
    finally:
        del sys.modules['package_of_another']
    for name, read in (('a.pth', read_checkpoint), ('a.pdparams', load_arrays)):
        with pytest.raises(UserError, match=r"needs a class.*'package_of_another'.*install"):
            read(tmp_path / name, trust=True)
