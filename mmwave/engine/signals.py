"""Signals that ask a training to leave: noted at once, acted upon where nothing is lost."""

import atexit
import multiprocessing
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any, NoReturn

from mmwave.errors import UserError, printable

from .exit_codes import PREEMPTED

SIGNALS = tuple(getattr(signal, name) for name in ('SIGTERM', 'SIGUSR1') if hasattr(signal, name))
"""Schedulers send SIGTERM at the end and SIGUSR1, where asked to, a while before it."""

GRACE = 25.0
"""Seconds that a run is given to save and leave: torchrun and Slurm kill 30 s after SIGTERM."""

_START_GRACE = 5.0  # before the first step, where there is nothing to save
_SAME = 3.0  # seconds in which a scheduler and a launcher may both pass the same request on
_END = 0  # no signal has this number


class Preempted(SystemExit):
    """A signal asked the run to leave; its process ends with :data:`PREEMPTED`.

    As SystemExit it passes libraries that catch every error.

    Args:
        text: one line that says what was saved and how to go on.
        together: all processes leave here, and the log has the line.
    """

    def __init__(self, text: str, *, together: bool) -> None:
        super().__init__(PREEMPTED)
        self.text = text
        self.together = together

    def __str__(self) -> str:
        return self.text


class Notice:
    """What this process was asked; see :func:`noted`.

    A thread notes signals, since handlers in Python wait for what the main thread waits for: a
    collective whose other side is gone would make the process deaf. It also ends a process that
    cannot leave by itself within the grace, and one that is asked a second time.

    Args:
        alone: no other process belongs to the run, so that before the first step it may leave at
            once.

    Attributes:
        received: number of the first signal, 0 while there is none.
        grace: seconds.
        starting: the first step has not begun.
        saving: the run is about to leave, and is not to be ended by the grace.
    """

    def __init__(self, alone: bool) -> None:
        self.received = 0
        self.grace = GRACE
        self.starting = True
        self.saving = False
        self._alone = alone
        self._handlers: dict[int, Any] = {}
        self._ends = (-1, -1)
        self._wakeup = -1
        self._thread: threading.Thread | None = None

    def install(self) -> None:
        reading, writing = self._ends = os.pipe()
        os.set_blocking(writing, False)
        self._wakeup = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._watch, args=(reading,), daemon=True)
        self._thread.start()
        self._handlers = {number: signal.signal(number, self._handle) for number in SIGNALS}

    def restore(self) -> None:
        reading, writing = self._ends
        for number, handler in self._handlers.items():
            _set_handler(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.write(writing, bytes([_END]))
        assert self._thread is not None
        self._thread.join()
        os.close(reading)
        os.close(writing)

    def restore_in_child(self) -> None:
        """Give a forked process the behaviour that it would have without us.

        The pipe is its parent's. SIGUSR1, which Slurm sends to every process of a job, would kill
        a process that has no part in the decision.
        """
        signal.set_wakeup_fd(-1)
        _set_handler(signal.SIGTERM, self._handlers.get(signal.SIGTERM, signal.SIG_DFL))
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        for end in self._ends:
            os.close(end)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or number
        if self.starting and self._alone:
            raise Preempted(_without_saving(number, 'before the first step'), together=False)

    def _watch(self, reading: int) -> None:
        first = deadline = 0.0
        while True:
            wait = max(0.0, deadline - time.monotonic()) if deadline else None
            if not select.select([reading], [], [], wait)[0]:
                deadline = time.monotonic() + 1
                if not self.saving:
                    where = 'before the first step' if self.starting else 'no step ended in time'
                    _leave(PREEMPTED, _without_saving(self.received, where))
                continue
            for number in os.read(reading, 64):
                if number == _END:
                    return
                if number not in SIGNALS:
                    continue
                now = time.monotonic()
                if not first:
                    self.received = self.received or number
                    quick = self.starting and self._alone
                    first, deadline = now, now + (_START_GRACE if quick else self.grace)
                elif now - first > _SAME:
                    _leave(128 + number, f'left at once at a second {_name(number)}')


_current: Notice | None = None


def current() -> Notice | None:
    """Return the notice of the training in progress, None outside of :func:`noted`."""
    return _current


@contextmanager
def noted(*, alone: bool) -> Iterator[Notice | None]:
    """Note SIGTERM and SIGUSR1 in place of dying from them; handlers are restored afterwards.

    Python lets only the main thread handle signals: in another one nothing is changed. A context
    inside of one is the same.

    Args:
        alone: the run is this process.

    Raises:
        Preempted: in place of an error other than a :class:`UserError` where a signal was received:
            the other processes are leaving, and what waits for them fails.
    """
    global _current
    if _current is not None or threading.current_thread() is not threading.main_thread():
        yield _current
        return
    _current = notice = Notice(alone)
    notice.install()
    try:
        yield notice
    except UserError:
        raise
    except Exception as error:
        if not notice.received:
            raise
        why = f'{type(error).__name__}: {printable(str(error).strip())}'
        raise Preempted(_without_saving(notice.received, why), together=False) from error
    finally:
        _current = None
        notice.restore()


def leave() -> NoReturn:
    """End this process, without the tear-down that waits for workers and threads one by one.

    A launcher kills what has not left in time, and asks again where another process has left first.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    atexit._run_exitfuncs()  # ends workers, flushes logs
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(PREEMPTED)


def shield_workers(loader: Any) -> None:
    """Have a loader's workers take SIGTERM from their own process alone.

    torchrun signals whole process groups and Slurm all processes of a job. Workers that die of it
    take their process with them, by an error, before it has saved.
    """
    from torch.utils.data import DataLoader

    if isinstance(loader, DataLoader) and loader.num_workers:
        loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)


def _start_worker(then: Callable[[int], None] | None, worker: int) -> None:
    _heed_parent_alone()
    if then is not None:
        then(worker)


def _heed_parent_alone() -> None:
    # Ctrl-C reaches the parent too, which ends its workers.
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # The parent process of one that a fork server made is not the one that it belongs to.
    parent = multiprocessing.parent_process()
    owner = os.getppid() if parent is None else parent.pid
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != owner:
        pass
    os._exit(0)


def _set_handler(number: int, handler: Any) -> None:
    # None stands for a handler that was not set by Python, which it cannot set again.
    signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _name(number: int) -> str:
    return signal.Signals(number).name


def _without_saving(number: int, where: str) -> str:
    return (
        f'left at {_name(number)} without saving ({where}): --resume goes on from the last '
        'checkpoint, if there is one'
    )


def _leave(code: int, text: str) -> NoReturn:
    os.write(2, f'{text}\n'.encode())
    os._exit(code)


def _forget_in_child() -> None:
    global _current
    if _current is not None:
        notice, _current = _current, None
        notice.restore_in_child()


if hasattr(os, 'register_at_fork'):  # not on Windows
    os.register_at_fork(after_in_child=_forget_in_child)
