"""Whether a file is a whole checkpoint, and what it notes, without loading it."""

import os
import zipfile

import pytest
import torch

from mmwave.checkpoint import damage_of, progress_of, read_checkpoint, whole
from mmwave.errors import UserError

from .files import Calls


@pytest.fixture
def path(tmp_path):
    content = {
        'meta': {'epoch': 2, 'iter': 10, 'time': '20250101_000000'},
        'state_dict': {'weight': torch.randn(1000)},
    }
    torch.save(content, tmp_path / 'a.pth')
    return tmp_path / 'a.pth'


def test_a_whole_one(path, monkeypatch):
    assert damage_of(path) == damage_of(str(path)) == ''
    monkeypatch.setattr(whole, '_check_archive', None)  # not read again
    assert damage_of(path) == ''
    os.utime(path, (1, 1))
    assert 'damaged' in damage_of(path)


def test_every_flipped_bit_of_an_entry_is_noticed(path):
    """By whoever loads it too."""
    original = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        entries = [(e.filename, e.header_offset, e.file_size) for e in archive.infolist()]
    for name, offset, size in entries:
        length = 30 + sum(int.from_bytes(original[offset + i : offset + i + 2], 'little')
                          for i in (26, 28))  # fmt: skip
        for at in {offset + length, offset + length + size // 2, offset + length + size - 1}:
            content = bytearray(original)
            content[at] ^= 4
            path.write_bytes(content)
            whole._damage_of.cache_clear()
            assert 'CRC-32' in damage_of(path), name
            if not name.endswith(('/version', '.format_version', '.storage_alignment', '_id')):
                for trust in (False, True):
                    with pytest.raises(UserError, match='is damaged'):
                        read_checkpoint(path, trust=trust)


@pytest.mark.parametrize('size', [0, 1, 100, 2000, -1])
def test_every_cut_is_noticed(path, size):
    path.write_bytes(path.read_bytes()[:size])
    assert damage_of(path)
    assert damage_of(path, contents=False)
    assert damage_of(path).isprintable()
    assert progress_of(path) is None


def test_no_file(tmp_path):
    assert damage_of(tmp_path / 'gone.pth') == 'No such file or directory'
    assert damage_of(tmp_path / 'a\0b')
    assert damage_of(tmp_path)


def test_files_without_checksums(path):
    content = torch.load(path)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(content, path)
    finally:
        torch.serialization.set_crc32_options(True)
    assert damage_of(path) == ''


def test_a_program_is_no_damage(tmp_path):
    """Whoever loads it says what it asks for, or runs it where that was allowed."""
    for legacy in (False, True):
        path = tmp_path / f'{legacy}.pth'
        content = {'meta': {'iter': 1}, 'x': Calls(os.system, 'true')}
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
        assert damage_of(path) == ''
        assert progress_of(path) is None


def test_progress(path, tmp_path):
    assert progress_of(path) == (10, '20250101_000000')
    for content in ([1], {}, {'meta': None}, {'meta': {}}, {'meta': {'iter': 'x'}}):
        torch.save(content, tmp_path / 'b.pth')
        assert progress_of(tmp_path / 'b.pth') is None
    torch.save({'meta': {'iter': 3, 'time': 5}}, tmp_path / 'b.pth')
    assert progress_of(tmp_path / 'b.pth') == (3, '')
