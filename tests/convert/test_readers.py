"""Every format of a published file gives its tensors."""

import argparse

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mmwave.checkpoint import UntrustedCheckpointError
from mmwave.convert.readers import read, read_mindspore

from .published import mindspore_entry, write_mindspore

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
    # The suffix says nothing: timm's is .pth.tar, and MindSpore's .ckpt is common for torch too.
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


@pytest.mark.parametrize('key', ['state_dict_ema', 'model_ema'])
def test_averaged_weights_are_taken_and_said(tmp_path, key):
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
    assert f'took the averaged weights (EMA), entry {key!r}' in averaged.notes
    same(raw.tensors, {'a': A})
    assert raw.weights == 'model'
    assert f'left the averaged weights (EMA), entry {key!r}, aside' in raw.notes
    torch.save(checkpoint | {key: None}, path)
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
