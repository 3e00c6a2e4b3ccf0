"""One training at a time in a work folder: two would overwrite each other's checkpoints."""

import errno
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from mmengine.logging import print_log

from mmwave.errors import UserError, printable, printable_path

LOCK = '.lock'
"""File in a work folder that the training holds which runs in it."""

_RANKS = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)
_held: set[int] = set()  # file descriptors


@contextmanager
def owned(work_dir: str | None, launcher: str) -> Iterator[None]:
    """Own a work folder, which is made where it is missing, for a training.

    The kernel lets go of the lock when its process ends, however that happens. On a file system
    without locks the file's text counts: on the same host whether its process lives, of another
    host a warning is all that can be said.

    Args:
        work_dir: of the training; None is nobody's.
        launcher: of :data:`mmwave.apis.usage.LAUNCHERS`; the first process of a run owns the folder
            for all.

    Raises:
        UserError: where another training owns it, which is named, or it cannot be written to.
    """
    if work_dir is None or os.environ.get(_RANKS.get(launcher, ''), '0') != '0':
        yield
        return
    path = os.path.join(work_dir, LOCK)
    try:
        os.makedirs(work_dir, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(
            f'work folder {printable_path(work_dir)}: {error.strerror}: give --work-dir another one'
        ) from error
    _held.add(descriptor)
    try:
        _lock(descriptor, work_dir)
        start = time.strftime('%Y-%m-%d %H:%M:%S')
        _write(descriptor, dict(host=socket.gethostname(), pid=os.getpid(), start=start))
        try:
            yield
        finally:
            _write(descriptor, None)
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def check_unowned(work_dir: str) -> None:
    """Check that no training owns a work folder, without owning it.

    That is for launchers to ask, on the first node: on others it may be the run's own training.

    Raises:
        UserError: where one does, which is named.
    """
    if os.environ.get('NODE_RANK', '0') != '0':
        return
    try:
        # For writing, without which NFS locks nothing exclusively.
        descriptor = os.open(os.path.join(work_dir, LOCK), os.O_RDWR)
    except OSError:  # none was here, or the training will say what is wrong
        return
    try:
        _lock(descriptor, work_dir)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, work_dir: str) -> None:
    try:
        import fcntl  # not on Windows

        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError) as error:
        owner = _read(descriptor)
        if getattr(error, 'errno', None) in _BUSY:
            raise _in_use(work_dir, owner) from error
        _judge_by_text(work_dir, owner)


def _judge_by_text(work_dir: str, owner: dict[str, Any]) -> None:
    """Decide where the file system has no locks."""
    host, pid = owner.get('host'), owner.get('pid')
    if host == socket.gethostname() and pid != os.getpid():
        if type(pid) is int and _lives(pid):
            raise _in_use(work_dir, owner)
    elif host is not None and host != socket.gethostname():
        print_log(
            f'{printable_path(work_dir)} was left by, or is in use by, {_described(owner)}: its '
            'file system has no locks to tell which; two trainings in one folder destroy each '
            "other's checkpoints",
            logger='current',
            level=logging.WARNING,
        )


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _in_use(work_dir: str, owner: dict[str, Any]) -> UserError:
    return UserError(
        f'work folder {printable_path(work_dir)} is in use by {_described(owner)}: wait for its '
        'end, or give --work-dir another folder'
    )


def _described(owner: dict[str, Any]) -> str:
    if not owner:
        return 'another training'
    pid, host, start = (printable(owner.get(key, '?')) for key in ('pid', 'host', 'start'))
    return f'the training of process {pid} on {host}, begun {start}'


def _read(descriptor: int) -> dict[str, Any]:
    try:
        owner = json.loads(os.pread(descriptor, 4096, 0))
    except (OSError, ValueError):
        return {}
    return owner if isinstance(owner, dict) else {}


def _write(descriptor: int, owner: dict[str, Any] | None) -> None:
    """Write who owns the folder; nobody does after None."""
    with suppress(OSError):  # a full disk: the lock is held all the same
        os.ftruncate(descriptor, 0)
        if owner is not None:
            os.pwrite(descriptor, json.dumps(owner).encode(), 0)


def _let_go_in_child() -> None:
    # The lock belongs to the open file, which a data loader's worker that survives its process for
    # seconds would keep open.
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_let_go_in_child)
