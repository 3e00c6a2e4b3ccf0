"""Every format of a published file is read."""

import argparse
import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmwave.checkpoint import (
    TRUST_FLAG,
    UntrustedCheckpointError,
    container_of,
    load_arrays,
    read_checkpoint,
)
from mmwave.convert.readers import read, read_mindspore, read_npz
from mmwave.errors import UserError

from .published import (
    PADDLE_TABLE,
    mindspore_entry,
    write_mindspore,
    write_npz,
    write_paddle,
    write_paddle_training,
)

A, B = torch.arange(6.0).reshape(2, 3), torch.full((4,), 2.5)


def same(tensors, wanted):
    assert list(tensors) == list(wanted)
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, wanted[name], rtol=0, atol=0)


@pytest.mark.parametrize('prefix', ['', 'module.'])
@pytest.mark.parametrize('key', [None, 'state_dict', 'model'])
@pytest.mark.parametrize('zipped', [True, False])
def test_torch(tmp_path, prefix, key, zipped):
    state = {f'{prefix}a': A, f'{prefix}b': B}
    # The suffix does not matter: timm's is .pth.tar, and torch files are called .ckpt too.
    path = tmp_path / 'x.ckpt'
    content = {key: state, 'epoch': 3} if key else state
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    source = read(path)
    same(source.tensors, {'a': A, 'b': B})
    assert (source.framework, source.weights, source.notes) == ('pytorch', 'model', ())


def test_safetensors(tmp_path):
    save_file({'a': A}, tmp_path / 'x.pth')
    source = read(tmp_path / 'x.pth')
    same(source.tensors, {'a': A})
    assert source.framework == 'pytorch'


@pytest.mark.parametrize('key', ['state_dict_ema', 'model_ema', 'ema'])
def test_averaged_weights_are_used_and_noted(tmp_path, key):
    path = tmp_path / 'x.pth.tar'
    checkpoint = {
        'epoch': 3,
        'arch': 'WaveMLP_T',
        'state_dict': {'module.a': A},
        'optimizer': {'state': {}, 'param_groups': [{'lr': 0.1}]},
        'args': argparse.Namespace(model='WaveMLP_T', opt_betas=None),
        'metric': np.float64(80.9),
        key: {'module.a': A + 1},
    }
    torch.save(checkpoint, path)
    averaged, raw = read(path), read(path, ema=False)
    same(averaged.tensors, {'a': A + 1})
    assert averaged.weights == 'ema'
    assert f'used the averaged weights (EMA), entry {key!r}' in averaged.notes
    same(raw.tensors, {'a': A})
    assert raw.weights == 'model'
    assert f'skipped the averaged weights (EMA), entry {key!r}' in raw.notes
    for nothing in (None, {}, 0.9999):
        torch.save(checkpoint | {key: nothing}, path)
        assert read(path).weights == 'model'
        assert read(path).notes == ()


def test_a_payload_is_refused(tmp_path):
    torch.save({'state_dict': {'a': A}, 'args': np.random.default_rng(0)}, tmp_path / 'x.pth')
    with pytest.raises(UntrustedCheckpointError, match=r'numpy\.random'):
        read(tmp_path / 'x.pth')
    same(read(tmp_path / 'x.pth', trust=True).tensors, {'a': A})


@pytest.mark.parametrize('content', [b'', b'text', b'\x0a', b'\x0a\x05text'])
def test_no_weight_file(tmp_path, content):
    (tmp_path / 'x').write_bytes(content)
    with pytest.raises(ValueError, match=rf'damaged or not a .*checkpoint \({len(content)} bytes'):
        read(tmp_path / 'x')


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere'):
        read(tmp_path / 'nowhere.ckpt')


@pytest.mark.parametrize('crc', [False, True])
def test_mindspore(tmp_path, crc):
    path = tmp_path / 'x.pth'
    text = ('task', 'str', (0,), 'wave'.encode('utf-32-le'))
    count = ('epoch_num', 'Int64', (), np.int64(300).tobytes())
    old = ('step_num', 'Int32', (0,), np.int32(-7).tobytes())
    entries = [mindspore_entry('a', A), text, count, old, mindspore_entry('b', B)]
    write_mindspore(path, entries, crc=crc)
    source = read(path)
    counts = {'epoch_num': torch.tensor(300), 'step_num': torch.tensor(-7, dtype=torch.int32)}
    same(source.tensors, {'a': A, **counts, 'b': B})
    assert (source.framework, source.weights) == ('mindspore', 'model')
    assert source.notes == ("skipped the text 'task'",)


DTYPES = {
    'Int8': torch.int8,
    'UInt8': torch.uint8,
    'Int16': torch.int16,
    'UInt16': torch.uint16,
    'Int32': torch.int32,
    'UInt32': torch.uint32,
    'Int64': torch.int64,
    'UInt64': torch.uint64,
    'Float16': torch.float16,
    'Float32': torch.float32,
    'Float64': torch.float64,
    'BFloat16': torch.bfloat16,
    'Bool': torch.bool,
}


@pytest.mark.parametrize(('dtype', 'wanted'), DTYPES.items(), ids=DTYPES)
def test_mindspore_types(tmp_path, dtype, wanted):
    tensor = torch.tensor([0, 1, 1], dtype=torch.int64).to(wanted)
    content = tensor.view(torch.uint8).numpy().tobytes()
    empty = ('none', dtype, (2, 0), b'')
    write_mindspore(tmp_path / 'x', [('a', dtype, (3,), content), empty])
    tensors, _ = read_mindspore(tmp_path / 'x')
    same(tensors, {'a': tensor, 'none': torch.empty((2, 0), dtype=wanted)})


def test_mindspore_slices_are_joined(tmp_path):
    big = torch.randn(300, generator=torch.Generator().manual_seed(0)).reshape(3, 100)
    tag, dtype, dims, content = mindspore_entry('big', big)
    cuts = [content[i : i + 500] for i in range(0, len(content), 500)]
    slices = [(tag, dtype, dims, cut) for cut in cuts]
    assert len(slices) == 3
    write_mindspore(tmp_path / 'x', [mindspore_entry('a', A), *slices, mindspore_entry('b', B)])
    same(read(tmp_path / 'x').tensors, {'a': A, 'big': big, 'b': B})


@pytest.mark.parametrize(
    ('entries', 'message'),
    [
        ([mindspore_entry('a', A), mindspore_entry('b', B), mindspore_entry('a', A)], "'a' occurs"),
        ([mindspore_entry('a', A), mindspore_entry('a', A.reshape(3, 2))], "'a' occurs twice"),
        ([mindspore_entry('a', A), mindspore_entry('a', A)], "'a' has 48 bytes"),
        ([('a', 'Float32', (2, 3), A.numpy().tobytes()[:-4])], "'a' has 20 bytes"),
        ([('a', 'Int4', (2,), b'\x12')], "'a' is of the unknown type 'Int4'"),
    ],
)
def test_mindspore_contradictions(tmp_path, entries, message):
    write_mindspore(tmp_path / 'x', entries)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / 'x')


def test_mindspore_damage(tmp_path):
    path = tmp_path / 'x'
    write_mindspore(path, [mindspore_entry('a', A)], crc=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:20] + bytes([whole[20] ^ 1]) + whole[21:])
    with pytest.raises(ValueError, match='CRC-32 does not match'):
        read(path)
    write_mindspore(path, [mindspore_entry('a', A)])
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=r'damaged.*3 bytes are missing'):
        read(path)


def test_files_with_settings_of_yacs_are_read(tmp_path, monkeypatch):
    """Training scripts made after Swin's, RepMLP's for one, save their settings as a CfgNode."""

    class CfgNode(dict):
        pass

    CfgNode.__module__, CfgNode.__qualname__ = 'yacs.config', 'CfgNode'
    monkeypatch.setitem(sys.modules, 'yacs', types.ModuleType('yacs'))
    monkeypatch.setitem(sys.modules, 'yacs.config', types.ModuleType('yacs.config'))
    sys.modules['yacs.config'].CfgNode = CfgNode
    config = CfgNode(AUG=CfgNode(MIXUP=0.8))
    config.__dict__['__immutable__'] = True
    torch.save({'model': {'module.a': A}, 'config': config, 'max_accuracy': 76.6}, tmp_path / 'x')
    monkeypatch.undo()
    same(read(tmp_path / 'x').tensors, {'a': A})
    assert read_checkpoint(tmp_path / 'x')['config'] == {'AUG': {'MIXUP': 0.8}}


# -- Paddle ------------------------------------------------------------------------------------

C = torch.arange(24, dtype=torch.int64).reshape(2, 3, 4)


@pytest.mark.parametrize('protocol', [2, 3, 4])
def test_paddle(tmp_path, protocol):
    # Told by the content: the suffix is that of torch.
    path = tmp_path / 'x.pth'
    write_paddle(path, {'a': A, 'b': B, 'c': C, 'scalar': torch.tensor(2.0)}, protocol=protocol)
    assert container_of(path) == 'pickle'
    source = read(path)
    same(source.tensors, {'a': A, 'b': B, 'c': C, 'scalar': torch.tensor(2.0)})
    assert (source.framework, source.weights) == ('paddle', 'model')
    (note,) = source.notes
    assert note.startswith(f'dropped {PADDLE_TABLE!r}: ')


def test_torch_without_zip_is_not_mistaken_for_paddle(tmp_path):
    path = tmp_path / 'x.pdparams'
    for protocol in (2, 3, 4):
        torch.save({'a': A}, path, _use_new_zipfile_serialization=False, pickle_protocol=protocol)
        assert container_of(path) == 'torch'
    torch.save({'a': A}, path, _use_new_zipfile_serialization=False)
    assert read(path).framework == 'pytorch'


def test_layouts_and_byte_orders_of_arrays(tmp_path):
    arrays = {
        'fortran': np.asfortranarray(A.numpy()),
        'strided': np.arange(12.0, dtype='f4').reshape(2, 6)[:, ::2],
        'big-endian': A.numpy().astype('>f4'),
        'half': A.half().numpy(),
    }
    (tmp_path / 'x').write_bytes(pickle.dumps(arrays, protocol=4))
    wanted = {'fortran': A, 'strided': 2 * A, 'big-endian': A, 'half': A.half()}
    source = read(tmp_path / 'x')
    same(source.tensors, wanted)
    assert source.notes == ()
    source.tensors['fortran'] += 1  # the file's bytes are not what is written to


def test_averaged_weights_of_paddle(tmp_path):
    write_paddle_training(tmp_path / 'x', model={'a': A}, model_ema={'a': A + 1})
    averaged, raw = read(tmp_path / 'x'), read(tmp_path / 'x', ema=False)
    same(averaged.tensors, {'a': A + 1})
    assert (averaged.framework, averaged.weights) == ('paddle', 'ema')
    assert averaged.notes == ("used the averaged weights (EMA), entry 'model_ema'",)
    same(raw.tensors, {'a': A})
    assert (raw.framework, raw.weights) == ('paddle', 'model')
    assert raw.notes == ("skipped the averaged weights (EMA), entry 'model_ema'",)


class Calls:
    """A pickle of this calls ``function(*arguments)`` when it is read."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize('protocol', [2, 4])
def test_a_payload_in_a_paddle_file_is_refused_and_runs_only_when_trusted(tmp_path, protocol):
    path, ran = tmp_path / 'x.pdparams', tmp_path / 'ran'
    content = {'a': A.numpy(), 'model': [Calls(os.mkdir, str(ran)), Calls(eval, '1')]}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    for reader in (read, read_checkpoint):
        with pytest.raises(UntrustedCheckpointError) as caught:
            reader(path)
        for text in (str(path), 'posix.mkdir', 'builtins.eval', TRUST_FLAG):
            assert text in str(caught.value)
        for text in ('numpy', 'codecs'):
            assert text not in str(caught.value)
    assert not ran.exists()
    load_arrays(path, trust=True)
    assert ran.exists()


def test_trust_reads_the_weights(tmp_path):
    content = {'a': A.numpy(), PADDLE_TABLE: {'a': Calls(str, 'x')}}
    (tmp_path / 'x').write_bytes(pickle.dumps(content))
    with pytest.raises(UntrustedCheckpointError, match=r'builtins\.str'):
        read(tmp_path / 'x')
    same(read(tmp_path / 'x', trust=True).tensors, {'a': A})


@pytest.mark.parametrize(
    ('content', 'named'),
    [
        (np.array([None, 'a'], dtype=object), 'dtype object'),
        (np.zeros(1, dtype=[('x', 'f4')]), 'dtype'),
        (np.ma.masked_array([1.0]), r'numpy\.ma'),
        (argparse.Namespace(a=1), r'argparse\.Namespace'),
        (torch.ones(1), r'torch\._utils\._rebuild_tensor_v2'),
        (Calls(getattr, [], 'append'), r'builtins\.getattr'),
        (Calls(np._core.multiarray._reconstruct, tuple, (0,), b'b'), 'subclass of numpy.ndarray'),
    ],
    ids=['objects', 'record', 'masked', 'namespace', 'torch', 'getattr', 'subclass'],
)
def test_what_a_paddle_file_may_not_hold(tmp_path, content, named):
    (tmp_path / 'x').write_bytes(pickle.dumps({'a': content}, protocol=4))
    with pytest.raises(UntrustedCheckpointError, match=named):
        read(tmp_path / 'x')


def test_a_paddle_file_changes_nothing_in_the_reader(tmp_path):
    """A pickle can set attributes of the functions that it is given: they must not be ours."""
    good = pickle.dumps({'a': np.int32(0)}, protocol=2)
    # Between looking the function up and calling it: BUILD with (None, {attribute: value}).
    name = b'cnumpy._core.multiarray\nscalar\n'
    assert name in good
    forged = good.replace(name, name + b'(N}X\x0c\x00\x00\x00__defaults__)stb')
    (tmp_path / 'x').write_bytes(forged)
    with pytest.raises(UntrustedCheckpointError, match='attributes of numpy'):
        load_arrays(tmp_path / 'x')


@pytest.mark.parametrize('trust', [False, True])
@pytest.mark.parametrize(
    'cut', [lambda whole: whole[:-1], lambda whole: whole[: len(whole) // 2], lambda _: b'\x80\x04']
)
def test_a_damaged_paddle_file(tmp_path, cut, trust):
    path = tmp_path / 'x.pdparams'
    write_paddle(path, {'a': A, 'b': B})
    path.write_bytes(cut(path.read_bytes()))
    with pytest.raises(ValueError, match=r'x\.pdparams is damaged or not a checkpoint'):
        read(path, trust=trust)


def test_a_length_that_does_not_match(tmp_path):
    path = tmp_path / 'x.pdparams'
    write_paddle(path, {'a': A}, protocol=3)
    content = path.read_bytes()
    shape = b'K\x02K\x03\x86'  # (2, 3)
    assert content.count(shape) == 1
    path.write_bytes(content.replace(shape, b'K\x02K\x04\x86'))
    with pytest.raises(ValueError, match=r'damaged.*cannot reshape'):
        read(path)


@pytest.mark.parametrize('content', [[1, 2], {'a': 'text'}, {'a': np.array(['text'])}, {}])
def test_a_pickle_without_weights(tmp_path, content):
    (tmp_path / 'x').write_bytes(pickle.dumps(content))
    with pytest.raises(UserError, match=r'no state dict|must be a dict'):
        read(tmp_path / 'x')


def test_tools_other_than_the_converter_point_to_it(tmp_path):
    write_paddle(tmp_path / 'x.pdparams', {'a': A})
    for trust in (False, True):
        with pytest.raises(ValueError, match=r'no torch file; tools/convert_checkpoint\.py'):
            read_checkpoint(tmp_path / 'x.pdparams', trust=trust)


def test_ordered_dicts_are_dicts(tmp_path):
    (tmp_path / 'x').write_bytes(pickle.dumps(OrderedDict(b=B.numpy(), a=A.numpy()), protocol=4))
    same(read(tmp_path / 'x').tensors, {'b': B, 'a': A})


# -- Archives of NumPy arrays --------------------------------------------------------------------


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_npz(tmp_path, save):
    path = tmp_path / 'x.pth'  # the content decides, not the suffix
    arrays = {
        'stem/kernel': A.numpy(),
        'fortran': np.asfortranarray(A.numpy()),
        'big-endian': A.numpy().astype('>f4'),
        'half': A.half().numpy(),
        'bfloat16': A.bfloat16().view(torch.int16).numpy().view('V2'),
        'count': np.int64(3),
    }
    with path.open('wb') as file:
        save(file, **arrays)
    assert container_of(path) == 'npz'
    source = read(path)
    wanted = {
        **dict.fromkeys(('stem/kernel', 'fortran', 'big-endian'), A),
        'half': A.half(),
        'bfloat16': A.bfloat16(),
        'count': torch.tensor(3),
    }
    same(source.tensors, wanted)
    assert (source.framework, source.weights, source.notes) == ('jax', 'model', ())
    source.tensors['stem/kernel'] += 1  # the file's bytes are not what is written to


@pytest.mark.parametrize('zipped', [True, False])
def test_torch_is_not_mistaken_for_npz(tmp_path, zipped):
    path = tmp_path / 'x.npz'
    torch.save({'a': A}, path, _use_new_zipfile_serialization=zipped)
    assert container_of(path) == 'torch'
    same(read(path).tensors, {'a': A})


@pytest.mark.parametrize(
    ('array', 'named'),
    [
        (np.array([None, 'a'], dtype=object), "'a' is of the type object, expected numbers"),
        (np.array(['text']), "'a' is of the type <U4, expected numbers"),
        (np.zeros(1, dtype=[('x', 'f4')]), "'a' is of the type"),
        (np.zeros(2, dtype='V3'), "'a' is of the type .V3, expected numbers"),
    ],
    ids=['objects', 'text', 'record', 'void'],
)
def test_what_an_npz_may_not_hold(tmp_path, array, named):
    np.savez(tmp_path / 'x.npz', a=array, allow_pickle=True)
    for trust in (False, True):
        with pytest.raises(ValueError, match=f'no archive of numbers.*{named}'):
            read(tmp_path / 'x.npz', trust=trust)


def test_an_entry_of_an_npz_that_is_no_array(tmp_path):
    write_npz(tmp_path / 'x', {'a': A})
    with zipfile.ZipFile(tmp_path / 'x', 'a') as archive:
        archive.writestr('readme.txt', 'text')
    with pytest.raises(ValueError, match=r"'readme\.txt' is no array, expected numbers"):
        read_npz(tmp_path / 'x')


def test_a_damaged_npz(tmp_path):
    path = tmp_path / 'x.npz'
    write_npz(path, {'a': A, 'b': B})
    whole = path.read_bytes()
    content = whole.index(A.numpy().tobytes())
    for broken in (
        whole[:-1],
        whole[: len(whole) // 2],
        whole[:40],
        whole[:content] + b'\xff' + whole[content + 1 :],  # its CRC-32 does not match
    ):
        path.write_bytes(broken)
        with pytest.raises(
            ValueError, match=rf'x\.npz is damaged or .*\({len(broken)} bytes.*no archive'
        ):
            read(path)


def test_tools_other_than_the_converter_point_to_it_for_npz(tmp_path):
    write_npz(tmp_path / 'x.npz', {'a': A})
    with pytest.raises(ValueError, match=r'NumPy arrays, no torch file; tools/convert_checkpoint'):
        read_checkpoint(tmp_path / 'x.npz')


# -- Content that cannot be weights --------------------------------------------------------------


def any_entry(name, tensor):
    if tensor.is_floating_point():
        return mindspore_entry(name, tensor)
    return name, 'Int64', tuple(tensor.shape), tensor.numpy().tobytes()


WRITERS = {
    'torch': lambda path, tensors: torch.save(tensors, path),
    'paddle': lambda path, tensors: write_paddle(path, tensors),
    'jax': lambda path, tensors: write_npz(path, tensors),
    'safetensors': lambda path, tensors: save_file(tensors, path),
    'mindspore': lambda path, tensors: write_mindspore(
        path, [any_entry(name, tensor) for name, tensor in tensors.items()]
    ),
}


@pytest.mark.parametrize('write', WRITERS.values(), ids=WRITERS)
@pytest.mark.parametrize(
    ('tensors', 'message'),
    [
        ({'a': torch.arange(3), 'b': torch.arange(2)}, 'none of 2 tensors is floating-point: a, b'),
        ({'a': A, 'b\x1b[2J\r': B}, r'the name b\\x1b\[2J\\r of a tensor has characters'),
        ({'a': A, '.' * 2000: B}, r'the name \.+ \(2000 characters\) of a tensor has'),
    ],
    ids=['integers', 'escape', 'long'],
)
def test_what_no_format_may_hold(tmp_path, write, tensors, message):
    write(tmp_path / 'x', tensors)
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / 'x')
    assert str(caught.value).isprintable()


@pytest.mark.parametrize('write', [WRITERS['paddle'], WRITERS['jax']], ids=['paddle', 'jax'])
def test_complex_arrays(tmp_path, write):
    write(tmp_path / 'x', {'a': A, 'head.bias': torch.ones(2, dtype=torch.complex64)})
    with pytest.raises(UserError, match=r'head\.bias is a complex tensor'):
        read(tmp_path / 'x')


@pytest.mark.skipif(np.dtype('longdouble').itemsize == 8, reason='no such type here')
def test_types_that_torch_does_not_have(tmp_path):
    wide = np.ones(2, dtype='longdouble')
    (tmp_path / 'x').write_bytes(pickle.dumps({'a': A.numpy(), 'b': wide}, protocol=4))
    with pytest.raises(UserError, match='no state dict: 1 tensors, other entries: b'):
        read(tmp_path / 'x')
    np.savez(tmp_path / 'x.npz', a=A.numpy(), b=wide)
    with pytest.raises(UserError, match="'b' is of the type float128, which torch does not have"):
        read(tmp_path / 'x.npz')


def test_every_flipped_bit_of_the_header_of_an_array(tmp_path):
    """The tokenizer that NumPy reads old headers with has errors of its own."""
    path = tmp_path / 'x.npz'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a.npy', b'')
    array = io.BytesIO()
    np.save(array, A.numpy())
    whole, read_ok = array.getvalue(), 0
    for at in range(10, 70):
        for bit in range(8):
            broken = bytearray(whole)
            broken[at] ^= 1 << bit
            with zipfile.ZipFile(path, 'w') as archive:
                archive.writestr('a.npy', bytes(broken))
            try:
                read(path)
                read_ok += 1
            except UserError:
                pass
    assert 0 < read_ok < 240


@pytest.mark.parametrize('compress', [np.savez, np.savez_compressed])
def test_an_archive_is_as_large_as_what_it_holds(tmp_path, compress):
    zeros, numbers = np.zeros(1 << 19, 'f4'), np.random.default_rng(0).standard_normal(1 << 19)
    compress(tmp_path / 'x.npz', a=numbers, b=numbers, c=zeros)
    assert read(tmp_path / 'x.npz').tensors.keys() == {'a', 'b', 'c'}
    np.savez_compressed(tmp_path / 'y.npz', a=numbers, b=zeros, c=zeros, d=zeros, e=zeros)
    with pytest.raises(UserError, match=r'its entries declare .* more than its size allows'):
        read(tmp_path / 'y.npz')


def test_texts_of_mindspore_are_escaped(tmp_path):
    text = ('a\x1b[2J', 'str', (0,), 'wave'.encode('utf-32-le'))
    write_mindspore(tmp_path / 'x', [mindspore_entry('a', A), text])
    assert read(tmp_path / 'x').notes == (r"skipped the text 'a\x1b[2J'",)
    write_mindspore(tmp_path / 'x', [('a\n', 'Int4\r', (2,), b'\x12')])
    with pytest.raises(UserError, match=r"'a\\n' is of the unknown type 'Int4\\r'"):
        read(tmp_path / 'x')


@pytest.mark.parametrize('dims', [(1 << 63, 0), (0, 1 << 62, 4), (1,) * 65])
def test_shapes_that_no_tensor_has(tmp_path, dims):
    content = bytes(4 if 0 not in dims else 0)
    write_mindspore(tmp_path / 'x', [('a', 'Float32', dims, content)])
    with pytest.raises(UserError, match=r'x is damaged.*(no tensor has|more than 64 dimensions)'):
        read(tmp_path / 'x')
