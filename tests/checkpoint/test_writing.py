"""Files that appear under their names when they are complete, whatever happens meanwhile."""

import errno
import fcntl
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from mmwave.checkpoint import (
    MissingFileError,
    check_target,
    checkpoint_bytes,
    read_checkpoint,
    whole_file,
    write_checkpoint,
)
from mmwave.errors import UserError
from tests.contracts import ROOT

OLD = b'what was there before'


@pytest.fixture
def target(tmp_path):
    """A file that is to be replaced."""
    path = tmp_path / 'weights.pth'
    path.write_bytes(OLD)
    return path


def others(path):
    """Return what else is in the folder of a file."""
    return sorted(p.name for p in path.parent.iterdir() if p != path)


def one_line(error):
    text = str(error.value)
    assert '\n' not in text
    return text


# -- The file ----------------------------------------------------------------------------------


def test_the_name_is_taken_when_the_block_ends(target):
    with whole_file(target) as file:
        file.write(b'new')
        file.flush()
        assert target.read_bytes() == OLD
        (part,) = others(target)
        assert part.startswith('.weights.pth.')
    assert target.read_bytes() == b'new'
    assert others(target) == []


def test_an_error_in_the_block_changes_nothing(target):
    def write():
        with whole_file(target) as file:
            file.write(b'new')
            raise KeyError('a mistake of ours')

    with pytest.raises(KeyError):
        write()
    assert target.read_bytes() == OLD
    assert others(target) == []


def test_the_content_is_on_disk_before_the_name_and_the_name_before_the_end(target, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace

    def fsync(descriptor):
        kind = 'folder' if os.path.isdir(f'/proc/self/fd/{descriptor}') else 'file'
        done.append((kind, os.fstat(descriptor).st_size if kind == 'file' else None))
        sync(descriptor)

    monkeypatch.setattr(os, 'fsync', fsync)
    monkeypatch.setattr(os, 'replace', lambda *names: done.append('renamed') or replace(*names))
    with whole_file(target) as file:
        file.write(b'new')
    assert done == [('file', 3), 'renamed', ('folder', None)]


@pytest.mark.parametrize('mode', [0o600, 0o640, 0o666])
def test_permissions_of_a_replaced_file_are_kept(target, mode):
    target.chmod(mode)
    with whole_file(target) as file:
        file.write(b'new')
        assert os.fstat(file.fileno()).st_mode & 0o777 == mode  # no wider while it is written
    assert target.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(('mask', 'mode'), [(0o022, 0o644), (0o077, 0o600)])
def test_a_new_file_follows_the_umask(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        with whole_file(tmp_path / 'new') as file:
            file.write(b'new')
    finally:
        os.umask(before)
    assert (tmp_path / 'new').stat().st_mode & 0o777 == mode


def test_a_symbolic_link_stays_one(target, tmp_path):
    folder = tmp_path / 'links'
    folder.mkdir()
    link = folder / 'link.pth'
    link.symlink_to(target)
    with whole_file(link) as file:
        file.write(b'new')
    assert link.is_symlink()
    assert target.read_bytes() == b'new'
    assert others(link) == []
    link.unlink()
    link.symlink_to(tmp_path / 'not_there_yet.pth')
    with whole_file(link) as file:
        file.write(b'newer')
    assert (tmp_path / 'not_there_yet.pth').read_bytes() == b'newer'
    link.unlink()
    link.symlink_to(link)
    with pytest.raises(UserError, match=r'link\.pth cannot be written: .*symbolic links'):
        whole_file(link).__enter__()


@pytest.mark.parametrize('kind', ['folder', 'fifo', 'socket', 'device'])
def test_only_regular_files_are_replaced(tmp_path, kind):
    path = tmp_path / 'x.pth'
    if kind == 'folder':
        path.mkdir()
    elif kind == 'fifo':
        os.mkfifo(path)
    elif kind == 'socket':
        socket.socket(socket.AF_UNIX).bind(str(path))
    else:
        path.symlink_to('/dev/null')
    kind = path.stat().st_mode
    said = r'x\.pth is (a folder|no regular file): it cannot be replaced'
    for refused in (lambda: check_target(path), lambda: whole_file(path).__enter__()):
        with pytest.raises(UserError, match=said) as error:
            refused()
        one_line(error)
    assert path.stat().st_mode == kind
    assert others(path) == []


def test_nothing_is_written_through_a_link_that_lies_in_wait(target, tmp_path, monkeypatch):
    """Names of part files cannot be foreseen; should one be there all the same, it is not used."""
    victim = tmp_path / 'victim'
    victim.write_bytes(b'precious')
    monkeypatch.setattr('secrets.token_hex', lambda _: '0' * 16)
    (tmp_path / f'.weights.pth.{"0" * 16}.part').symlink_to(victim)
    with pytest.raises(UserError, match='File exists'), whole_file(target) as file:
        file.write(b'new')
    assert victim.read_bytes() == b'precious'
    assert target.read_bytes() == OLD


# -- Failures ----------------------------------------------------------------------------------


@contextmanager
def little_room(size):
    """Let no file be longer than ``size`` bytes: what a full disk looks like to its writer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


# Of one small block, which is written when the file is closed, and of several.
@pytest.mark.parametrize('count', [10, 100_000])
@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_a_full_disk_is_one_line_and_the_old_file_survives(tmp_path, suffix, count):
    path = tmp_path / f'weights{suffix}'
    path.write_bytes(OLD)
    state = {name: torch.ones(count) for name in 'abc'}
    with little_room(50), pytest.raises(UserError) as error:
        write_checkpoint(path, state, {})
    assert one_line(error) == f'{path} cannot be written: File too large'
    assert path.read_bytes() == OLD
    assert others(path) == []


def test_a_disk_that_fails_late_is_one_line_and_the_old_file_survives(target, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, 'fsync', fsync)
    with pytest.raises(UserError, match=r'weights\.pth cannot be written: Input/output error'):
        write_checkpoint(target, {'a': torch.ones(1)}, {})
    assert target.read_bytes() == OLD
    assert others(target) == []


@pytest.mark.parametrize('error', [PermissionError, OSError])
def test_a_folder_that_may_not_be_written_to_is_one_line(target, monkeypatch, error):
    number = errno.EACCES if error is PermissionError else errno.EROFS
    opened = os.open

    def refusing(path, flags, *mode):
        if flags & os.O_CREAT:
            raise error(number, os.strerror(number), str(path))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, 'open', refusing)
    said = r'weights\.pth cannot be written: (Perm|Read-only)'
    with pytest.raises(UserError, match=said) as told:
        write_checkpoint(target, {'a': torch.ones(1)}, {})
    assert '.part' not in one_line(told)


def test_names_that_no_file_can_have(tmp_path):
    for name in ('x' * 300 + '.pth', 'y/' * 3000 + 'x.pth'):
        with pytest.raises(UserError) as error:
            check_target(tmp_path / name)
        assert len(one_line(error)) < 6200 if '/' in name else 300
    longest = tmp_path / ('x' * 251 + '.pth')  # as long as names may be: its part's must not be
    with whole_file(longest) as file:
        file.write(b'new')
    assert longest.read_bytes() == b'new'


def test_torch_s_complaint_about_what_the_disk_refused_is_the_disk_s(target, monkeypatch):
    def save(*_):
        try:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            raise RuntimeError('unexpected pos 97920 vs 97840')

    monkeypatch.setattr(torch, 'save', save)
    with pytest.raises(UserError, match=r'weights\.pth cannot be written: No space left'):
        write_checkpoint(target, {'a': torch.ones(1)}, {})
    assert target.read_bytes() == OLD
    assert others(target) == []


def test_mistakes_of_torch_are_not_taken_for_the_disk_s(target, monkeypatch):
    def save(*_):
        raise RuntimeError('a mistake of ours')

    monkeypatch.setattr(torch, 'save', save)
    with pytest.raises(RuntimeError, match='a mistake of ours'):
        write_checkpoint(target, {'a': torch.ones(1)}, {})
    assert target.read_bytes() == OLD
    assert others(target) == []


# -- Processes ---------------------------------------------------------------------------------

WRITER = """
import sys, time
from pathlib import Path
from mmwave.checkpoint import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b'half')
    file.flush()
    print('writing', flush=True)
    time.sleep(600)
"""


@pytest.fixture
def writer(target):
    """A process in the midst of writing the target."""
    process = subprocess.Popen(
        [sys.executable, '-c', WRITER, str(target)], stdout=subprocess.PIPE, cwd=ROOT
    )
    assert process.stdout.readline() == b'writing\n'
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_what_a_killed_writer_left_is_removed_by_the_next(writer, target, tmp_path):
    (part,) = others(target)
    # A living writer's is not touched, nor a file that only looks similar.
    similar = ('.weights.pth.part', '.weights.pth.0123.part', f'.more.weights.pth.{"0" * 16}.part')
    for name in similar:
        (tmp_path / name).write_bytes(b'')
    with whole_file(target) as file:
        file.write(b'new')
    assert others(target) == sorted([part, *similar])
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert target.read_bytes() == b'new'
    with whole_file(target) as file:
        file.write(b'newer')
    assert others(target) == sorted(similar)
    assert target.read_bytes() == b'newer'


def test_links_and_folders_named_like_leftovers_are_left_alone(target, tmp_path):
    victim = tmp_path / 'victim'
    victim.write_bytes(b'precious')
    link, folder = (tmp_path / f'.weights.pth.{digit * 16}.part' for digit in '01')
    link.symlink_to(victim)
    folder.mkdir()
    with whole_file(target) as file:
        file.write(b'new')
    assert victim.read_bytes() == b'precious'
    assert link.is_symlink()
    assert folder.is_dir()


@pytest.mark.parametrize('place', [(fcntl, 'flock'), (os, 'fdopen')], ids=str)
def test_a_part_that_is_removed_before_it_is_locked_is_begun_again(target, monkeypatch, place):
    """Between opening and locking a part, another writer may treat it as a leftover."""
    step, seen = getattr(*place), []

    def taken(descriptor, *arguments):
        if not seen:
            seen.append(os.readlink(f'/proc/self/fd/{descriptor}'))
            os.unlink(seen[0])
        return step(descriptor, *arguments)

    monkeypatch.setattr(*place, taken)
    with whole_file(target) as file:
        file.write(b'new')
    assert seen
    assert target.read_bytes() == b'new'
    assert others(target) == []


def test_a_file_system_without_locks(target, monkeypatch):
    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, 'flock', flock)
    leftover = target.with_name(f'.weights.pth.{"0" * 16}.part')
    leftover.write_bytes(b'')
    with whole_file(target) as file:
        file.write(b'new')
    assert target.read_bytes() == b'new'
    assert others(target) == [leftover.name]  # it may be somebody's


def test_two_writers_at_a_time_leave_one_whole_file(target):
    with whole_file(target) as first:
        first.write(b'first')
        with whole_file(target) as second:
            second.write(b'second')
        assert target.read_bytes() == b'second'
    assert target.read_bytes() == b'first'
    assert others(target) == []


@pytest.mark.slow
def test_the_old_or_the_new_file_is_there_whenever_the_writer_is_killed(tmp_path):
    path = tmp_path / 'weights.pth'
    write_checkpoint(path, {'a': torch.zeros(1)}, {})
    code = (
        'import sys, torch; from pathlib import Path; from mmwave.checkpoint import *\n'
        'print("ready", flush=True)\n'
        'while True: write_checkpoint(Path(sys.argv[1]), {"a": torch.ones(3_000_000)}, {})'
    )
    sizes = set()
    for k in range(12):
        process = subprocess.Popen(
            [sys.executable, '-c', code, str(path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(0.01 * k)
        process.kill()
        process.wait()
        process.stdout.close()
        sizes.add(read_checkpoint(path)['state_dict']['a'].numel())
        assert len(others(path)) <= 1
    assert sizes <= {1, 3_000_000}


# -- Checkpoints -------------------------------------------------------------------------------


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_what_is_written_is_read(tmp_path, suffix):
    path = tmp_path / f'a{suffix}'
    whole = torch.arange(1000.0)
    meta = {'arch': 't', 'backbone': {'depths': [1, 2]}}
    write_checkpoint(path, {'a': whole[:2], 'b': whole.view(100, 10).t()}, meta)
    got = read_checkpoint(path)
    assert got['meta'] == meta
    assert torch.equal(got['state_dict']['a'], whole[:2])
    assert torch.equal(got['state_dict']['b'], whole.view(100, 10).t())
    assert path.stat().st_size < 10_000


@pytest.mark.parametrize('value', [{(1, 2): 3}, {1, 2}, np.array([1j])])
def test_notes_without_a_form_in_json_are_named(tmp_path, value):
    path = tmp_path / 'a.safetensors'
    with pytest.raises(UserError, match=r"a\.safetensors cannot hold the note 'odd' as text") as e:
        write_checkpoint(path, {'a': torch.ones(1)}, {'fine': np.ones(2), 'odd': value})
    one_line(e)
    assert others(path) == []
    with pytest.raises(TypeError):
        json.dumps(value)


@pytest.mark.parametrize(
    ('name', 'error', 'message'),
    [
        ('a.bin', UserError, r'a\.bin must end in \.pth or \.safetensors'),
        ('', UserError, r'must end in \.pth or \.safetensors'),
        ('nowhere/a.pth', MissingFileError, r'no folder .*nowhere to write a\.pth in'),
        ('file/a.pth', MissingFileError, r'no folder .*file to write a\.pth in'),
    ],
)
def test_targets_that_cannot_be(tmp_path, name, error, message):
    (tmp_path / 'file').write_bytes(b'')
    with pytest.raises(error, match=message):
        check_target(tmp_path / name)
    with pytest.raises(error, match=message):
        write_checkpoint(tmp_path / name, {'a': torch.ones(1)}, {})


@pytest.mark.parametrize('meta', [{'licence': 'lone\ud800surrogate'}, {'lone\ud800': 'name'}])
def test_notes_that_utf_8_has_no_form_for_are_named(tmp_path, meta):
    with pytest.raises(UserError, match=r'cannot hold the note .* as text') as told:
        write_checkpoint(tmp_path / 'a.safetensors', {'a': torch.ones(1)}, meta)
    assert str(told.value).isprintable()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_the_same_content_is_the_same_bytes(tmp_path, suffix):
    """Names by the hash of a file rely on it; safetensors' own order is one of chance."""
    tensors = {'b': torch.arange(3.0), 'a': torch.ones(2, dtype=torch.float64)}
    meta = {name: name for name in 'zyxwvutsrqponm'} | {'é': 'ü'}
    path = tmp_path / f'a{suffix}'
    found = {checkpoint_bytes(path, tensors, meta) for _ in range(5)}
    assert len(found) == 1
    assert not path.exists()
    write_checkpoint(path, tensors, meta)
    assert {path.read_bytes()} == found
    read = read_checkpoint(path)
    torch.testing.assert_close(read['state_dict'], tensors, rtol=0, atol=0)
    assert read['meta'] == meta


def test_a_safetensors_file_without_notes(tmp_path):
    path = tmp_path / 'a.safetensors'
    write_checkpoint(path, {'a': torch.ones(3)}, {})
    assert torch.equal(read_checkpoint(path)['state_dict']['a'], torch.ones(3))
