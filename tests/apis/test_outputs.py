"""Outputs are tried for writing before anything is loaded."""

import errno
import os

import pytest

from mmwave.apis import UsageError
from mmwave.apis.outputs import check_output_file, check_output_folder


def test_a_place_that_can_be_written_is_left_as_it_was(tmp_path):
    old = tmp_path / 'old.pkl'
    old.write_bytes(b'old')
    check_output_file('--out', str(old))
    check_output_file('--out', str(tmp_path / 'made/new.pkl'))
    check_output_folder('--show-dir', str(tmp_path / 'shown'))
    assert old.read_bytes() == b'old'
    assert sorted(p.name for p in tmp_path.iterdir()) == ['made', 'old.pkl', 'shown']
    assert not list((tmp_path / 'made').iterdir())


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / 'folder.pkl').mkdir()
    with pytest.raises(UsageError, match=r'^--out \S+folder\.pkl is a folder: name a file in it$'):
        check_output_file('--out', str(tmp_path / 'folder.pkl'))
    os.mkfifo(tmp_path / 'pipe.pkl')
    with pytest.raises(UsageError, match='is no regular file'):
        check_output_file('--out', str(tmp_path / 'pipe.pkl'))
    (tmp_path / 'file').write_text('')
    with pytest.raises(UsageError, match=r'^--out \S+a\.pkl cannot be written: .*; name another'):
        check_output_file('--out', str(tmp_path / 'file/a.pkl'))
    with pytest.raises(UsageError, match=r'^--show-dir \S+file cannot be written: File exists'):
        check_output_folder('--show-dir', str(tmp_path / 'file'))


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_full_disks_and_read_only_ones_are_told(tmp_path, monkeypatch, number):
    def fail(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, 'fsync', fail)
    with pytest.raises(UsageError, match=rf'a\.pkl cannot be written: {os.strerror(number)}'):
        check_output_file('--out', str(tmp_path / 'a.pkl'))
