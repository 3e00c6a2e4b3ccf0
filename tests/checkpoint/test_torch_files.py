"""Torch files are read as by torch.load, plain data and tensors that were checked first."""

import argparse
import collections
import io
import pickle
import struct
import sys
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from mmwave.checkpoint import UntrustedCheckpointError, read_checkpoint, state_dict_of
from mmwave.errors import UserError

from .files import Calls

FORMATS = {
    'zip': {},
    'legacy': {'_use_new_zipfile_serialization': False},
    'zip-protocol-5': {'pickle_protocol': 5},
    'legacy-protocol-4': {'_use_new_zipfile_serialization': False, 'pickle_protocol': 4},
}


@pytest.fixture(params=FORMATS.values(), ids=FORMATS)
def written(request, tmp_path):
    def write(content):
        torch.save(content, tmp_path / 'a.pth', **request.param)
        return tmp_path / 'a.pth'

    return write


DTYPES = [
    *('bool', 'uint8', 'int8', 'int16', 'int32', 'int64', 'uint16', 'uint32', 'uint64'),
    *('float16', 'bfloat16', 'float32', 'float64', 'complex32', 'complex64', 'complex128'),
    *('float8_e4m3fn', 'float8_e5m2', 'float8_e8m0fnu'),
]


@pytest.mark.parametrize('name', DTYPES)
def test_every_dtype(written, name):
    dtype = getattr(torch, name)
    whole = torch.arange(24).to(dtype).reshape(2, 3, 4)
    saved = {'a': whole, 'b': whole.transpose(0, 2)[1:], 'none': whole[:0], 'one': whole[0, 0, 1]}
    got = read_checkpoint(written(saved))
    assert list(got) == list(saved)
    for tensor, wanted in zip(got.values(), saved.values(), strict=True):
        assert (tensor.dtype, tensor.shape) == (dtype, wanted.shape)
        assert tensor.stride() == wanted.stride()
        first, second = (t.reshape(-1).contiguous().view(torch.uint8) for t in (tensor, wanted))
        assert first.equal(second)


def test_views_of_one_storage_stay_so(written):
    whole = torch.arange(12.0)
    got = read_checkpoint(written({'whole': whole, 'rows': whole.view(3, 4), 'tail': whole[5:]}))
    got['whole'][7] = -1
    assert got['rows'][1, 3] == got['tail'][2] == -1
    assert got['tail'].tolist() == [5, 6, -1, 8, 9, 10, 11]


def test_parameters_and_gradients(written):
    saved = {
        'parameter': nn.Parameter(torch.ones(2)),
        'frozen': nn.Parameter(torch.ones(2), requires_grad=False),
        'leaf': torch.ones(2, requires_grad=True),
    }
    got = read_checkpoint(written(saved))
    assert [type(v) for v in got.values()] == [nn.Parameter, nn.Parameter, torch.Tensor]
    assert [v.requires_grad for v in got.values()] == [True, False, True]


def test_lazy_conjugates_and_negatives(written):
    z = torch.tensor([1 + 2j, 3 - 1j])
    got = read_checkpoint(written({'conj': z.conj(), 'neg': z.clone().conj().imag}))
    assert got['conj'].tolist() == [1 - 2j, 3 + 1j]
    assert got['neg'].tolist() == [-2, 1]


def test_plain_objects_of_torch_and_python(written):
    saved = {
        'size': torch.Size([1, 2]),
        'device': torch.device('cuda', 1),
        'dtype': torch.bfloat16,
        'layout': torch.sparse_coo,
        'bytes': b'\x00\xff' * 5,
        'no bytes': b'',
        'bytearray': bytearray(b'ab'),
        'no bytearray': bytearray(),
        'set': {1, 'a', (2, 3)},
        'complex': 1 - 2j,
        'numbers': (True, None, -(1 << 70), 0.5, 300, 70000),
        'empty': np.zeros((0, 3)),
        ('a', 1): {0.5: 'x', None: 1, b'k': 2},
        'text': 'é\U0001f600' * 200,
    }
    assert repr(read_checkpoint(written(saved))) == repr(saved)


def test_a_counter_is_one(written):
    got = read_checkpoint(written({'milestones': collections.Counter([3, 3, 5])}))
    assert type(got['milestones']) is collections.Counter
    assert sorted(got['milestones'].elements()) == [3, 3, 5]


def test_versions_of_modules_reach_load_state_dict(written):
    class Versioned(nn.Linear):
        _version = 7

        def _load_from_state_dict(self, state, prefix, metadata, *args):
            self.seen = metadata.get('version')
            super()._load_from_state_dict(state, prefix, metadata, *args)

    state = read_checkpoint(written({'state_dict': nn.Sequential(Versioned(1, 1)).state_dict()}))
    model = nn.Sequential(Versioned(1, 1))
    model.load_state_dict(state['state_dict'])
    assert model[0].seen == 7
    assert type(state['state_dict']) is collections.OrderedDict
    assert vars(state['state_dict']).keys() == {'_metadata'}
    assert type(state['state_dict']._metadata) is dict


@pytest.mark.parametrize('metadata', [3, {1: {}}, {'a': 3}, {'a': {'version': 'new'}}])
def test_versions_that_are_none(written, metadata):
    state = nn.Linear(1, 1).state_dict()
    state._metadata = metadata
    with pytest.raises(UserError, match=r'damaged.*_metadata of a state dict'):
        read_checkpoint(written(state))


# -- Attributes --------------------------------------------------------------------------------


@pytest.mark.parametrize('method', ['get', 'values', 'pop', 'keys', '__getitem__'])
def test_an_attribute_of_a_dict_hides_nothing(written, method):
    top = collections.OrderedDict(meta={'config': 'import os'}, state_dict={'a': torch.ones(1)})
    setattr(top, method, 'hidden')
    got = read_checkpoint(written(top))
    assert type(got) is dict
    assert getattr(got, method).__self__ is got
    assert got['meta'] == {'config': 'import os'}


def test_a_class_is_no_value(written):
    """The attack behind the test above set a dict's ``get``, one that returned an empty object."""
    top = collections.OrderedDict(state_dict={'a': torch.ones(1)})
    top.get = collections.Counter
    assert type(read_checkpoint(written(top))) is dict
    for value in (collections.Counter, torch.FloatStorage, nn.Parameter):
        with pytest.raises(UntrustedCheckpointError, match='as a value'):
            read_checkpoint(written({'a': torch.ones(1), 'b': [value]}))


def test_tensors_lose_their_attributes(written):
    tensor, parameter = torch.ones(2), nn.Parameter(torch.ones(2))
    tensor.note, parameter.note = 'a', 'b'
    got = read_checkpoint(written({'tensor': tensor, 'parameter': parameter}))
    assert [type(v) for v in got.values()] == [torch.Tensor, nn.Parameter]
    assert not any(vars(v) for v in got.values())


def test_a_namespace_keeps_its_methods(written):
    settings = argparse.Namespace(lr=0.1)
    settings.itself = settings
    got = read_checkpoint(written({'a': settings}))['a']
    assert got.itself is got
    assert got.lr == 0.1
    with pytest.raises(UserError, match=r"damaged.*with the attribute '__repr__'"):
        read_checkpoint(written({'a': argparse.Namespace(**{'__repr__': 1})}))


@pytest.mark.parametrize('state', [3, None, ([1],), {'_log_history': 3}])
def test_a_history_without_numbers(written, state):
    from mmengine.logging import HistoryBuffer

    with pytest.raises(UserError, match=r'damaged.*HistoryBuffer'):
        read_checkpoint(written([Calls(HistoryBuffer, state=state)]))


# -- Kinds of tensors --------------------------------------------------------------------------

ONES = torch.ones(2)
UNFIT = {
    'sparse': (torch.eye(2).to_sparse(), 'a sparse tensor'),
    'csr': (torch.eye(2).to_sparse_csr(), 'a sparse tensor'),
    'quantised': (
        torch.quantize_per_tensor(torch.ones(2), 1, 0, torch.qint8),
        'a quantised tensor',
    ),
    'meta': (torch.ones(2, device='meta'), 'a meta tensor'),
    'nested': (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), 'a nested tensor'),
}


@pytest.mark.parametrize(('tensor', 'kind'), UNFIT.values(), ids=UNFIT)
def test_tensors_that_cannot_be_weights(written, tensor, kind):
    content = {'state_dict': {'a': torch.ones(1), 'head.bias': tensor}}
    message = rf'a\.pth: head\.bias is {kind}.*expected a dense tensor of real numbers'
    with pytest.raises(UserError, match=message):
        read_checkpoint(written(content))
    with pytest.raises(UserError, match=rf'^head\.bias is {kind}'):
        state_dict_of(content)


# -- Archives ----------------------------------------------------------------------------------

TENSOR = torch.arange(300.0)


def rewritten(change, content=None, **options):
    """Return a torch archive whose entries ``change`` turned into others: name -> content."""
    file = io.BytesIO()
    torch.save({'a': TENSOR} if content is None else content, file)
    with zipfile.ZipFile(file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    new = io.BytesIO()
    with zipfile.ZipFile(new, 'w', **options) as archive:
        for name, data in change(entries):
            archive.writestr(name, data)
    return new.getvalue()


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda e: [*e.items(), ('other/data.pkl', b'N.')], '2 entries named data.pkl'),
        (lambda e: [*e.items(), ('archive/data.pkl', b'N.')], 'have the same name'),
        (lambda e: [(k, v) for k, v in e.items() if 'data/0' not in k], 'storage 0 is missing'),
        (lambda e: [(k, v[:-4] if 'data/0' in k else v) for k, v in e.items()], '1196 bytes'),
        (lambda e: [(k, v + v if 'data/0' in k else v) for k, v in e.items()], '2400 bytes'),
        (lambda e: [(k, b'middle' if 'byteorder' in k else v) for k, v in e.items()], 'byte order'),
    ],
)
def test_archives_that_contradict_themselves(tmp_path, change, message):
    (tmp_path / 'a.pth').write_bytes(rewritten(change))
    with pytest.raises(UserError, match=f'damaged.*{message}'):
        read_checkpoint(tmp_path / 'a.pth')


def test_torchscript_is_a_program(tmp_path):
    script = rewritten(lambda e: [*e.items(), ('archive/constants.pkl', b'N.')])
    (tmp_path / 'a.pth').write_bytes(script)
    with pytest.raises(UntrustedCheckpointError, match='asks for TorchScript'):
        read_checkpoint(tmp_path / 'a.pth')


def test_compressed_archives_are_none_of_torch(tmp_path):
    packed = rewritten(lambda e: e.items(), compression=zipfile.ZIP_DEFLATED)
    (tmp_path / 'a.pth').write_bytes(packed)
    with pytest.raises(UserError, match=r'damaged.*is compressed'):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize('order', ['little', 'big', None])
def test_byte_orders(tmp_path, order):
    def change(entries):
        for name, data in entries.items():
            if name.endswith('/byteorder'):
                if order:
                    yield name, order.encode()
            elif '/data/' in name and order == 'big':
                yield name, np.frombuffer(data, '<f4').astype('>f4').tobytes()
            else:
                yield name, data

    (tmp_path / 'a.pth').write_bytes(rewritten(change))
    assert read_checkpoint(tmp_path / 'a.pth')['a'].equal(TENSOR)
    assert torch.load(tmp_path / 'a.pth')['a'].equal(TENSOR)


@pytest.mark.parametrize('where', ['data.pkl', 'data/0'])
def test_a_flipped_bit_is_seen_by_the_checksum(tmp_path, where):
    whole = rewritten(lambda e: e.items())
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        content = whole.index(archive.read(f'archive/{where}'))
    at = content + (whole[content:].index(b'a') if where == 'data.pkl' else 1000)
    (tmp_path / 'a.pth').write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    torch.load(tmp_path / 'a.pth')
    with pytest.raises(UserError, match=rf'damaged.*Bad CRC-32 for file .*{where}'):
        read_checkpoint(tmp_path / 'a.pth')


def test_a_file_without_checksums_says_how_to_read_it(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save({'a': TENSOR}, tmp_path / 'a.pth')
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.raises(UserError, match=r'set_crc32_options\(False\).*--trust-checkpoint'):
        read_checkpoint(tmp_path / 'a.pth')
    assert read_checkpoint(tmp_path / 'a.pth', trust=True)['a'].equal(TENSOR)


# -- The format before torch 1.6 ----------------------------------------------------------------


class Storing(pickle._Pickler):
    """Writes a text that begins with ``storage`` as a persistent id."""

    def persistent_id(self, value):
        return value.pid if isinstance(value, Pid) else None


class Pid:
    def __init__(self, *pid):
        self.pid = pid


def legacy(content, storages):
    """Return an old file of ``content`` with storages by their key: float32 values."""
    file = io.BytesIO()
    for part in (torch.serialization.MAGIC_NUMBER, 1001, {'little_endian': True}):
        pickle.dump(part, file, protocol=2)
    Storing(file, protocol=2).dump(content)
    pickle.dump(list(storages), file, protocol=2)
    for values in storages.values():
        file.write(struct.pack('<q', len(values)) + np.array(values, '<f4').tobytes())
    return file.getvalue()


def stored(numel, key='k', view=None):
    return Pid('storage', torch.FloatStorage, key, 'cpu', numel, view)


def test_parameters_and_views_of_2017(tmp_path):
    tensor = Calls(torch._utils._rebuild_tensor, stored(6, view=('v', 2, 4)), 1, (3,), (1,))
    old = Calls(nn.Parameter, state=(tensor, None, None, True, {}))
    older = Calls(nn.Parameter, tensor, state=(False, None, {}))
    (tmp_path / 'a.pth').write_bytes(legacy([tensor, old, older], {'k': range(6)}))
    got = read_checkpoint(tmp_path / 'a.pth')
    assert [v.tolist() for v in got] == [[3, 4, 5]] * 3
    assert [v.requires_grad for v in got] == [False, True, False]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ((stored(6), 0, (7,), (1,)), 'reaches beyond its storage'),
        ((stored(6), 4, (3,), (1,)), 'reaches beyond its storage'),
        ((stored(6), 0, (3, 3), (2, 1)), 'reaches beyond its storage'),
        ((stored(6), -1, (1,), (1,)), 'size or an offset'),
        ((stored(6), 0, (-1,), (1,)), 'size or an offset'),
        ((stored(6), 0, (1,), (-1,)), 'size or an offset'),
        ((stored(6), 0, (True,), (1,)), 'size or an offset'),
        ((stored(6), 0, (1, 1), (1,)), 'strides'),
        ((stored(6), 0, (1 << 62, 4, 0), (1, 1, 1)), '2.63 elements'),
        ((stored(6), 0, (1,) * 65, (1,) * 65), 'at most 64'),
        ((stored(6, view=('v', 4, 3)), 0, (1,), (1,)), 'view reaches beyond'),
        ((stored(7), 0, (1,), (1,)), 'another size|ends before'),
        ((stored(1 << 40), 0, (1,), (1,)), 'its storages declare 4398046511112 bytes'),
        ((stored(1 << 200), 0, (1,), (1,)), 'size or an offset'),
        ((stored(6, key='other'), 0, (1,), (1,)), 'list of storages'),
    ],
)
def test_tensors_are_held_against_their_storage(tmp_path, arguments, message):
    tensor = Calls(torch._utils._rebuild_tensor, *arguments)
    (tmp_path / 'a.pth').write_bytes(legacy({'a': tensor}, {'k': range(6)}))
    with pytest.raises(UserError, match=f'damaged.*({message})'):
        read_checkpoint(tmp_path / 'a.pth')


def test_tensors_that_declare_more_than_the_file_holds(tmp_path):
    tensor = Calls(torch._utils._rebuild_tensor, stored(6), 0, (1 << 20, 6), (0, 1))
    (tmp_path / 'a.pth').write_bytes(legacy({'a': tensor}, {'k': range(6)}))
    with pytest.raises(UserError, match=r'a\.pth is not read: it declares tensors and arrays of'):
        read_checkpoint(tmp_path / 'a.pth')


@pytest.mark.parametrize(
    ('content', 'asked'),
    [
        (Pid('module', torch.FloatStorage, 'f', 'text', 1), 'a persistent id that is no storage'),
        (Pid('storage', 'FloatStorage', 'k', 'cpu', 6, None), 'a persistent id that is no storage'),
        (
            Calls(torch._utils._rebuild_tensor, [1], 0, (1,), (1,)),
            'a tensor of an object of type list',
        ),
        (Calls(torch.Tensor, 3), 'a call of torch.Tensor'),
    ],
)
def test_names_of_torch_serve_nothing_else(tmp_path, content, asked):
    (tmp_path / 'a.pth').write_bytes(legacy({'a': content}, {'k': range(6)}))
    with pytest.raises(UntrustedCheckpointError, match=asked):
        read_checkpoint(tmp_path / 'a.pth')


def test_a_bare_storage_is_named(tmp_path):
    (tmp_path / 'a.pth').write_bytes(legacy({'a.b': stored(6)}, {'k': range(6)}))
    with pytest.raises(UserError, match=r'a\.b is a bare storage'):
        read_checkpoint(tmp_path / 'a.pth')


def test_this_machine_is_little_endian():
    assert sys.byteorder == 'little'  # what the tests above assume
