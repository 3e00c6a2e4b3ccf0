"""What the processes of a data loader are reading, for whoever waits for them."""

import functools
import mmap
import os
import struct
from collections.abc import Callable
from multiprocessing.queues import Queue
from typing import Any, NamedTuple

from torch.utils.data import DataLoader, get_worker_info

from mmwave.engine.data_checks.datasets import unwrap

_TEXT = 1000  # bytes
_SLOT = struct.Struct(f'=QQH{_TEXT}sH{_TEXT}s')
_PID, _COUNT, _IMAGE, _FAILURE = 0, 8, 16, 18 + _TEXT


class Note(NamedTuple):
    """Of one process.

    Attributes:
        pid: its number, 0 before it has begun.
        count: samples begun.
        image: path of the last one's image, '' for none.
        failure: why the process left, '' where it did not.
    """

    pid: int
    count: int
    image: str
    failure: str


class Notes:
    """Memory that the processes of a loader share: each overwrites its own part.

    It is passed on to processes by fork alone: others take no notes. It is no part of /dev/shm,
    which may be full.

    Args:
        num_workers: of the loader; there is a part for the process that reads without workers too.
    """

    def __init__(self, num_workers: int) -> None:
        self._memory = mmap.mmap(-1, _SLOT.size * (num_workers + 1))

    def __reduce__(self) -> tuple[Any, ...]:  # for other ways to start a process: of its own
        return Notes, (len(self) - 1,)

    def __len__(self) -> int:
        return len(self._memory) // _SLOT.size

    def begin(self) -> None:
        """Note that this process takes part."""
        struct.pack_into('=Q', self._memory, self._start() + _PID, os.getpid())

    def read_image(self, path: str) -> None:
        """Note the image that this process turns to."""
        start = self._start()
        (count,) = struct.unpack_from('=Q', self._memory, start + _COUNT)
        struct.pack_into('=Q', self._memory, start + _COUNT, count + 1)
        self._write(start + _IMAGE, path)

    def fail(self, reason: str) -> None:
        """Note why this process leaves."""
        self._write(self._start() + _FAILURE, reason)

    def all(self) -> list[Note]:
        """Return the notes: of the process without workers, then of each worker."""
        found = []
        for start in range(0, len(self._memory), _SLOT.size):
            pid, count, length, image, reason_length, reason = _SLOT.unpack_from(
                self._memory, start
            )
            texts = (image[:length], reason[:reason_length])
            found.append(Note(pid, count, *(text.decode(errors='replace') for text in texts)))
        return found

    def _start(self) -> int:
        worker = get_worker_info()
        return _SLOT.size * (0 if worker is None else worker.id + 1)

    def _write(self, start: int, text: str) -> None:
        data = text.encode(errors='replace')[:_TEXT]
        struct.pack_into(f'=H{len(data)}s', self._memory, start, len(data), data)


class NoteImage:
    """A transform that notes the path of the image, ahead of the one that opens it."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    def __call__(self, results: Any) -> Any:
        path = results.get('img_path') if isinstance(results, dict) else None
        self._notes.read_image(str(path or ''))
        return results


class _Begin:
    """The first thing that a worker does."""

    def __init__(self, notes: Notes, then: Callable[[int], None] | None) -> None:
        self._notes = notes
        self._then = then

    def __call__(self, worker_id: int) -> None:
        self._notes.begin()
        # Of this process alone. A batch that cannot be sent (a full /dev/shm) is lost: Python
        # prints the error and goes on, and the process that waits for the batch never hears of it.
        leave = functools.partial(_leave, self._notes)
        setattr(Queue, '_on_queue_feeder_error', staticmethod(leave))  # noqa: B010
        if self._then is not None:
            self._then(worker_id)


def _leave(notes: Notes, error: Exception, _: Any) -> None:
    """End a worker, which its loader notices."""
    notes.fail(f'{type(error).__name__}: {error}')
    os._exit(1)


def take_notes(loader: DataLoader) -> Notes:
    """Have the processes of a loader take notes; its iterators must not have been made yet."""
    notes = Notes(loader.num_workers)
    for place in unwrap(loader.dataset):
        transforms = getattr(getattr(place.dataset, 'pipeline', None), 'transforms', None)
        if isinstance(transforms, list):
            transforms[:] = [step for step in transforms if not isinstance(step, NoteImage)]
            transforms.insert(0, NoteImage(notes))
    if loader.num_workers:
        before = loader.worker_init_fn
        loader.worker_init_fn = _Begin(notes, before)
    return notes
