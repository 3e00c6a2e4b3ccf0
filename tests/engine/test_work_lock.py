"""One training at a time in a work folder. With real trainings: ``tests/faults``."""

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from mmwave.engine.work_lock import LOCK, check_unowned, owned
from mmwave.errors import UserError
from tests.contracts import ROOT

HOLDER = """
import os, sys, time
from mmwave.engine.work_lock import owned
with owned(sys.argv[1], 'none'):
    # As a data loader's worker does, the child outlives its killed parent.
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(60)
        os._exit(0)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that owns the folder, and the pid of its child."""
    process = subprocess.Popen(
        [sys.executable, '-c', HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline())
    yield process
    process.kill()
    process.wait()
    os.kill(child, signal.SIGKILL)


@pytest.fixture
def without_locks(monkeypatch):
    """A file system without locks."""

    def refuse(*_):
        raise OSError(errno.ENOLCK, 'No locks available')

    monkeypatch.setattr(fcntl, 'flock', refuse)


def own(folder):
    with owned(str(folder), 'none'):
        return json.loads((folder / LOCK).read_text())


def leave(folder, **owner):
    (folder / LOCK).write_text(json.dumps({'start': 'then', 'host': socket.gethostname(), **owner}))


def test_an_owner_is_named_until_it_dies(tmp_path, holder):
    message = f'process {holder.pid} on {socket.gethostname()}, begun 20.*--work-dir'
    before = sorted(p.name for p in tmp_path.iterdir())
    for check in (check_unowned, lambda folder: own(tmp_path)):
        with pytest.raises(UserError, match=message):
            check(str(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir()) == before == [LOCK]
    holder.kill()
    holder.wait()
    check_unowned(str(tmp_path))
    assert own(tmp_path)['pid'] == os.getpid()


def test_one_after_another_in_one_process(tmp_path):
    folder = tmp_path / 'deep' / 'work'
    for _ in range(2):
        assert own(folder)['host'] == socket.gethostname()
        assert (folder / LOCK).read_text() == ''
    with owned(str(folder), 'none'), pytest.raises(UserError, match=f'process {os.getpid()} '):
        own(folder)
    own(folder)


def test_other_ranks_and_nodes_own_nothing(tmp_path, monkeypatch, holder):
    for launcher, name in (('pytorch', 'RANK'), ('slurm', 'SLURM_PROCID')):
        monkeypatch.setenv(name, '1')
        with owned(str(tmp_path), launcher):
            pass
        with pytest.raises(UserError):
            own(tmp_path)  # a single process, whatever the environment says
    monkeypatch.setenv('NODE_RANK', '1')
    check_unowned(str(tmp_path))


def test_checking_makes_nothing(tmp_path):
    check_unowned(str(tmp_path / 'new'))
    assert not (tmp_path / 'new').exists()


def test_checking_asks_for_the_lock_as_nfs_gives_it(tmp_path, monkeypatch):
    """A process that was killed has left its text, and another one may have its number now."""

    def of_nfs(descriptor, _):
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, 'Bad file descriptor')

    owner = dict(host=socket.gethostname(), pid=os.getppid(), start='')
    (tmp_path / LOCK).write_text(json.dumps(owner))
    monkeypatch.setattr(fcntl, 'flock', of_nfs)
    check_unowned(str(tmp_path))


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(UserError, match='--work-dir'):
        own(tmp_path / 'file')


@pytest.mark.usefixtures('without_locks')
class TestWithoutLocks:
    def test_a_living_process(self, tmp_path):
        process = subprocess.Popen(['sleep', '60'])
        leave(tmp_path, pid=process.pid)
        try:
            with pytest.raises(UserError, match=f'process {process.pid} '):
                own(tmp_path)
        finally:
            process.kill()
            process.wait()
        own(tmp_path)

    def test_another_host(self, tmp_path):
        leave(tmp_path, host='elsewhere', pid=1)
        own(tmp_path)

    @pytest.mark.parametrize('text', ['', '{', '[]', '{"host": 1, "pid": "x"}', '\0'])
    def test_a_strange_file(self, tmp_path, text):
        (tmp_path / LOCK).write_text(text)
        own(tmp_path)


def test_a_strange_file_of_an_owner(tmp_path):
    with owned(str(tmp_path), 'none'):
        (tmp_path / LOCK).write_text('{"host": "a\\u001b[31m"}')
        with pytest.raises(UserError, match=r'on a\\x1b\[31m'):
            check_unowned(str(tmp_path))
        (tmp_path / LOCK).write_text('')
        with pytest.raises(UserError, match='another training'):
            check_unowned(str(tmp_path))
