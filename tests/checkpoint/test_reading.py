"""Every format is read, detected from its content, and damage is named."""

import argparse
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer
from safetensors.torch import save_file

from mmwave.checkpoint import (
    UntrustedCheckpointError,
    container_of,
    read_checkpoint,
    sha256_of,
)
from mmwave.errors import UserError

from .files import safetensors_file, torch_file


@pytest.mark.parametrize('zipped', [True, False], ids=['zip', 'legacy'])
def test_reads_what_training_tools_save(tmp_path, zipped):
    history = HistoryBuffer([1.0, 3.0], [1, 1], max_length=7)
    saved = {
        'state_dict': {'a': torch.arange(6.0).reshape(2, 3)},
        'args': argparse.Namespace(lr=0.1, betas=(0.9, np.float32(0.5)), mean=np.ones(3)),
        'history': {'loss': history, 'same': history},
        'arrays': [
            np.arange(6.0).reshape(2, 3).T,
            np.arange(3, dtype='>i2'),
            np.array(['ab', 'c']),
            np.array(2.5, dtype=np.float16),
        ],
        'scalars': (np.float64(2.5), np.int64(-3), np.bool_(True)),
        'dtype': np.dtype('float32'),
    }
    path = tmp_path / 'a.pth'
    torch.save(saved, path, _use_new_zipfile_serialization=zipped)
    got = read_checkpoint(path)
    assert torch.equal(got['state_dict']['a'], saved['state_dict']['a'])
    assert got['args'].lr == 0.1
    assert got['args'].betas == (0.9, np.float32(0.5))
    np.testing.assert_array_equal(got['args'].mean, np.ones(3))
    for array, want in zip(got['arrays'], saved['arrays'], strict=True):
        np.testing.assert_array_equal(array, want, strict=True)
    assert got['scalars'] == saved['scalars']
    assert [type(s) for s in got['scalars']] == [np.float64, np.int64, np.bool_]
    assert got['dtype'] == np.float32
    loss = got['history']['loss']
    assert type(loss) is HistoryBuffer
    assert got['history']['same'] is loss
    assert loss.max_length == 7
    assert loss.statistics('mean') == 2.0
    loss.update(5.0)
    assert loss.current() == 5.0


def test_reads_safetensors_with_its_metadata(tmp_path):
    path = tmp_path / 'weights'
    save_file({'a': torch.ones(2)}, path, metadata={'arch': 't', 'backbone': '{"depths": [1]}'})
    got = read_checkpoint(path)
    assert torch.equal(got['state_dict']['a'], torch.ones(2))
    assert got['meta'] == {'arch': 't', 'backbone': {'depths': [1]}}


def test_as_many_notes_are_decoded_as_are_safe_to_hold(tmp_path):
    path = tmp_path / 'weights'
    classes = json.dumps({'classes': [f'n{i:08}' for i in range(21_841)]})  # ImageNet-21k
    notes = {'dataset_meta': classes, 'small': '{"a": 1}', 'large': '{"a": "' + 'x' * (1 << 20)}
    notes['large'] += '"}'
    save_file({'a': torch.ones(2)}, path, metadata=notes)
    meta = read_checkpoint(path)['meta']
    assert meta['small'] == {'a': 1}
    assert meta['dataset_meta'] == json.loads(classes)
    assert meta['large'] == notes['large']


def test_tensors_come_to_the_host(tmp_path):
    torch.save({'a': torch.ones(2, device='meta')}, tmp_path / 'a.pth')
    torch.save({'a': torch.ones(2)}, tmp_path / 'b.pth')
    with torch.device('meta'):
        assert read_checkpoint(tmp_path / 'b.pth')['a'].device.type == 'cpu'


@pytest.mark.parametrize('path_type', [str, Path])
def test_missing_file(tmp_path, path_type):
    with pytest.raises(FileNotFoundError, match=r'no checkpoint file .*nowhere\.pth') as caught:
        read_checkpoint(path_type(tmp_path / 'nowhere.pth'))
    assert isinstance(caught.value, UserError)
    with pytest.raises(FileNotFoundError, match='no checkpoint file'):
        read_checkpoint(path_type(tmp_path))


def test_container_of_goes_by_content(tmp_path):
    path = tmp_path / 'a.pth'
    for content, kind in (
        (torch_file(), 'torch'),
        (torch_file(zipped=False), 'torch'),
        (safetensors_file(tmp_path), 'safetensors'),
        (b'{"json": {}}', 'other'),
        (b'nothing {of the} kind', 'other'),
    ):
        path.write_bytes(content)
        assert container_of(path) == kind


def test_sha256_of(tmp_path):
    (tmp_path / 'abc').write_bytes(b'abc')  # the example of FIPS 180-2
    assert sha256_of(tmp_path / 'abc') == (
        'ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad'
    )


# -- Damage ------------------------------------------------------------------------------------


@pytest.mark.parametrize('trust', [False, True])
@pytest.mark.parametrize(
    'content',
    [
        lambda _: b'',
        lambda _: b'just text, no weights',
        lambda _: torch_file()[: len(torch_file()) // 2],
        lambda _: torch_file()[:-30],
        lambda _: torch_file(zipped=False)[:200],
        lambda _: torch_file(zipped=False)[:-5],
        lambda folder: safetensors_file(folder)[:-5],
        lambda folder: safetensors_file(folder)[:12],
        lambda _: b'PK\x03\x04 and no more',
        lambda _: b'\x80',
    ],
    ids=lambda value: '' if isinstance(value, bool) else None,
)
def test_damage_is_named_with_the_size(tmp_path, content, trust):
    path = tmp_path / 'cut.pth'
    path.write_bytes(content(tmp_path))
    size = path.stat().st_size
    with pytest.raises(ValueError, match='damaged or not a checkpoint') as caught:
        read_checkpoint(path, trust=trust)
    assert f'cut.pth is damaged or not a checkpoint ({size} bytes)' in str(caught.value)
    assert not isinstance(caught.value, UntrustedCheckpointError)


def test_another_zip_archive_is_no_checkpoint(tmp_path):
    with zipfile.ZipFile(tmp_path / 'a.pth', 'w') as archive:
        archive.writestr('hello.txt', 'hello')
    with pytest.raises(ValueError, match=r'not a checkpoint \(\d+ bytes\)'):
        read_checkpoint(tmp_path / 'a.pth')


def test_a_list_that_holds_itself_is_read(tmp_path):
    endless = [1]
    endless.append(endless)
    torch.save(endless, tmp_path / 'a.pth')
    got = read_checkpoint(tmp_path / 'a.pth')
    assert got[1] is got


# -- Paths and metadata ------------------------------------------------------------------------


def loop(folder):
    (folder / 'a').symlink_to(folder / 'b')
    (folder / 'b').symlink_to(folder / 'a')
    return folder / 'a'


@pytest.mark.parametrize('read', [read_checkpoint, container_of])
@pytest.mark.parametrize(
    ('path', 'message'),
    [
        (loop, 'no checkpoint file'),
        (lambda folder: f'{folder}/a\0b', r'no checkpoint file .*a\\x00b|cannot be read'),
        (lambda folder: f'{folder}/{"a" * 3000}', 'cannot be read'),
        (lambda folder: '~nobody-of-this-name/a.pth', 'cannot be read'),
        (lambda folder: folder, 'no checkpoint file'),
        (lambda folder: '', 'no checkpoint file'),
        (lambda folder: f'{folder}/a\x1b[2J\n', r'no checkpoint file .*a\\x1b\[2J\\n$'),
    ],
)
def test_paths_that_lead_nowhere(tmp_path, read, path, message):
    with pytest.raises(UserError, match=message) as caught:
        read(path(tmp_path))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 3000


def test_a_file_without_permission(tmp_path, monkeypatch):
    (tmp_path / 'a.pth').write_bytes(torch_file())

    def refuse(*_, **__):
        raise PermissionError(13, 'Permission denied', str(tmp_path))

    monkeypatch.setattr(Path, 'open', refuse)
    for trust in (False, True):
        with pytest.raises(UserError, match=r'a\.pth cannot be read: Permission denied$'):
            read_checkpoint(tmp_path / 'a.pth', trust=trust)


@pytest.mark.parametrize(
    'text',
    ['[' * 100_000, '{"a":' * 100_000, '{"a": ' + '[' * 200 + ']' * 200 + '}', '{"a"', '[1]'],
)
def test_metadata_that_are_no_json_object_are_texts(tmp_path, text):
    save_file({'a': torch.ones(1)}, tmp_path / 'a', metadata={'note': text})
    assert read_checkpoint(tmp_path / 'a')['meta'] == {'note': text}
