"""What ended a run, in lines: on the screen, in torchrun's summary and in the log file.

A user's error is one line, as are memory that does not suffice and the loss of another process.
Every other exception keeps its traceback, with a last line on where in the run it was raised. Of
processes of one machine that fail alike the first one says so.
"""

import errno
import hashlib
import json
import os
import os.path as osp
import re
import socket
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

from mmwave.engine.exit_codes import USER_ERROR
from mmwave.errors import UserError, printable, printable_path

from .config_errors import refused_setting
from .memory_advice import memory_line

# torch and mmengine are imported inside functions: wrong calls end before they are.
if TYPE_CHECKING:
    from mmwave.engine.failed_step import FailedStep

RAN_INTO_ERROR = 1
ERROR_FILE = 'TORCHELASTIC_ERROR_FILE'
"""Environment variable of torchrun's processes: where one writes what ended it."""

_LONGEST = 4000
_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
_OF_FILES = (
    *(errno.EDQUOT, errno.EEXIST, errno.ELOOP, errno.ENAMETOOLONG, errno.ENOSPC, errno.EROFS),
)
_RANKS = ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK')
_SIZES = ('WORLD_SIZE', 'SLURM_NTASKS', 'OMPI_COMM_WORLD_SIZE')
_LOST_PEER = re.compile(
    r'gloo/.*\] (?P<gloo>Connection (closed|reset) by peer|Timed out waiting \d+ms|Broken pipe'
    r'|Application timeout|Read error|Write error|Connect timeout)'
    r'|NCCL communicator was aborted|ncclRemoteError|remote process exited'
    r'|caught collective operation timeout|failed to (recv|send), got \d+ bytes'
    r'|Connection was likely closed',
    re.DOTALL,
)
_PORT_IN_USE = re.compile(r'port: (\d+).*EADDRINUSE', re.DOTALL)
_IN_WORKER = re.compile(r'Caught \w+ in DataLoader worker process \d+\.')
# What torch's messages leave open.
_HINTS = (
    (
        re.compile(r'device-side assert triggered'),
        'most often a label outside of the classes that the model has; with '
        'CUDA_LAUNCH_BLOCKING=1 in the environment the traceback names the operation',
    ),
    (
        re.compile(r'DataLoader worker .*(Bus error|shared memory)'),
        'the shared memory in /dev/shm did not suffice: give a container more '
        '(docker run --shm-size=16g or --ipc=host), or set num_workers lower',
    ),
    (
        re.compile(r'DataLoader worker .*(killed by signal: Killed|exited unexpectedly)'),
        "most often the machine's memory did not suffice: set num_workers lower; `dmesg` tells",
    ),
)


class Failure(NamedTuple):
    """What ended a process.

    Attributes:
        kind: ``'user'``, ``'memory'``, ``'peer'`` (another process went away), ``'left'`` (with an
            exit code and no exception) or ``'other'``.
        what: the reason, in one line.
        where: phase, iteration and images in one line; may be empty.
        code: exit code of the process.
    """

    kind: str
    what: str
    where: str = ''
    code: int = RAN_INTO_ERROR

    @property
    def line(self) -> str:
        return f'{self.what}; {self.where}' if self.where else self.what


def failure_of(error: BaseException, step: 'FailedStep | None' = None) -> Failure:
    """Convert an exception that ended a run.

    Args:
        error: as it was caught.
        step: what the run was doing, None where that is not known.
    """
    if isinstance(error, UserError | OSError) and (text := _user_line(error)):
        return Failure('user', text, code=getattr(error, 'exit_code', USER_ERROR))
    text = str(error)
    if what := port_in_use(text):
        return Failure('user', what, code=USER_ERROR)
    where = _place(step)
    if lost := _LOST_PEER.search(text):
        return Failure(
            'peer', f'lost another process of the run ({lost["gloo"] or lost[0]})', where
        )
    if line := memory_line(error, step):
        return Failure('memory', line, where)
    if line := refused_setting(error):
        return Failure('user', line, code=USER_ERROR)
    what = _summary(error)
    return Failure('other', '; '.join([what, *_hints(error)]), where)


def port_in_use(text: str) -> str | None:
    """Return the line for torch's message on a port that another program has, None for others."""
    port = _PORT_IN_USE.search(text)
    if port is None:
        return None
    return f'port {port[1]} is in use on {socket.gethostname()}: set PORT= to a free one'


def end_by(error: Exception) -> int | None:
    """Say what ended this process, where no other of this machine has said the same.

    Args:
        error: caught outside of everything else.

    Returns:
        The exit code, None where the error is to be raised again: its traceback is to be shown, to
        which a last line was added on where in the run it was raised.
    """
    step = _step(error)
    failure = failure_of(error, step)
    details = _traceback(error) if not isinstance(error, UserError) else ''
    kept = _keep_in_log(step, f'error: {_rank()}{failure.line}\n{details}')
    if failure.kind == 'other':
        for hint in _hints(error):
            error.add_note(hint)
        place = f'{_rank()}{failure.where}'.rstrip(': ')
        note = '; '.join([place] * bool(place) + [f'log: {kept}'] * bool(kept))
        if note:
            error.add_note(note)
        details = _traceback(error)
    _write_error_file(failure, details)
    if not _is_first(failure, error):
        return failure.code
    if failure.kind == 'other':
        return None
    # What a class raises of its settings may be a mistake in the class, of the user's own too.
    if not kept and (failure.kind == 'memory' or isinstance(error, ValueError | AssertionError)):
        sys.stderr.write(details)
    rank = '' if failure.kind == 'user' else _rank()
    tail = f'; traceback: {kept}' if kept and details else ''
    print(f'error: {rank}{failure.line}{tail}', file=sys.stderr, flush=True)
    return failure.code


def note_exit(code: Any) -> None:
    """Leave the exit code of this process where its launcher finds it."""
    if code and isinstance(code, int):
        _write_error_file(Failure('left', f'left with exit code {code}', code=code), '')


def _user_line(error: BaseException) -> str | None:
    """Return the line on a mistake of the user's, None where it is none."""
    if isinstance(error, OSError) and not isinstance(error, _NO_FILE):
        if error.errno not in _OF_FILES or error.filename is None:
            return None
        if error.errno == errno.EEXIST:
            return f'{printable_path(error.filename)} is in the way: it exists, and is no folder'
    return _one_line(str(error))


def _one_line(text: str) -> str:
    lines = (printable(line.strip(), _LONGEST) for line in text.splitlines())
    return '; '.join(line for line in lines if line)


def _summary(error: BaseException) -> str:
    """Return type and message; of an exception in a data loader's worker those of the original."""
    text = str(error)
    if not _IN_WORKER.match(text):
        notes = getattr(error, '__notes__', [])
        text = _one_line('\n'.join([text, *notes]))
        return f'{type(error).__name__}: {text}' if text else type(error).__name__
    lines = text.splitlines()
    code = [index for index, line in enumerate(lines) if line.startswith('  ')]
    return _one_line('\n'.join(lines[code[-1] + 1 :] if code else lines))


def _hints(error: BaseException) -> list[str]:
    return [hint for pattern, hint in _HINTS if pattern.search(str(error))]


def _step(error: BaseException) -> 'FailedStep | None':
    if 'mmengine.runner' not in sys.modules:
        return None
    from mmwave.engine.failed_step import failed_step

    return failed_step(error)


def _place(step: 'FailedStep | None') -> str:
    if step is None:
        return ''
    return '; '.join(part for part in (step.where, step.named_images()) if part)


def _rank() -> str:
    """Return how messages name this process, empty where it is the only one."""
    rank = next((os.environ[name] for name in _RANKS if name in os.environ), '0')
    size = next((os.environ[name] for name in _SIZES if name in os.environ), '1')
    return '' if size == '1' else f'rank {rank} of {size} on {socket.gethostname()}: '


def _traceback(error: BaseException) -> str:
    return ''.join(traceback.format_exception(error))


def _keep_in_log(step: 'FailedStep | None', text: str) -> str | None:
    """Write to the log file of the run, which other processes than the first have none of.

    Returns:
        Its path, None where there is none.
    """
    if step is None or step.runner is None:
        return None
    from mmwave.engine.failed_step import log_file

    path = log_file(step.runner)
    try:
        if path is not None:
            with open(path, 'a', encoding='utf-8', errors='backslashreplace') as file:
                file.write(f'{text.rstrip()}\n')
    except OSError:  # a full disk, which may be what ended the run
        return None
    return path and printable_path(path)


def _write_error_file(failure: Failure, details: str) -> None:
    """Write what torchrun reads; what it does not know, in its own launcher's summary, is ours."""
    path = os.environ.get(ERROR_FILE)
    if not path:
        return
    now = time.time()
    document = dict(
        message=f'{_rank()}{failure.line}',
        extraInfo=dict(py_callstack=details or f'{_rank()}{failure.line}', timestamp=str(int(now))),
        mmwave=dict(failure._asdict(), time=now),
    )
    try:
        with open(path, 'w', encoding='utf-8') as file:
            json.dump(dict(message=document), file)
    except OSError as error:
        print(f'{path}: {error}', file=sys.stderr, flush=True)


def _is_first(failure: Failure, error: BaseException) -> bool:
    """Return whether no other process of this machine has failed alike before.

    Processes of one torchrun leave a mark beside the folders of their error files.
    """
    path = os.environ.get(ERROR_FILE)
    if not path:
        return True
    alike = failure.what
    if failure.kind in ('memory', 'peer'):  # which hold numbers of the one process
        alike = failure.kind
    elif failure.kind == 'other':
        places = traceback.extract_tb(error.__traceback__)
        alike = f'{alike} {[(place.filename, place.lineno) for place in places]}'
    mark = f'said-{hashlib.sha1(alike.encode(errors="replace")).hexdigest()}'
    try:
        os.close(os.open(osp.join(osp.dirname(osp.dirname(path)), mark), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    except OSError:
        return True
    return True
