"""Whether the batches of data loaders' workers fit into the shared memory that they are sent in."""

import io
import multiprocessing
import os
import pickle
import select
import signal
import socket
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch.utils.data import DataLoader

from mmwave.errors import UserError

FOLDER = '/dev/shm'
REMEDY = (
    'give the container more (docker run --shm-size=8g, or --ipc=host), or lower num_workers, '
    'prefetch_factor or batch_size'
)
_PAGE = 4096
_SAMPLES = 2


class SharedMemoryError(UserError):
    """Shared memory that not even one batch fits into."""


class Need(NamedTuple):
    """Of one process, in bytes.

    Attributes:
        host: name of its machine.
        free: in the machine's /dev/shm.
        total: size of it.
        batch: the smallest batch.
        batches: all batches that are loaded ahead.
    """

    host: str
    free: int
    total: int
    batch: int
    batches: int


def free_and_total() -> tuple[int, int] | None:
    """Return the bytes of /dev/shm, None on a system without."""
    try:
        stats = os.statvfs(FOLDER)
    except OSError:
        return None
    return stats.f_bavail * stats.f_frsize, stats.f_blocks * stats.f_frsize


def size_of(size: int) -> str:
    """Return a number of bytes as text."""
    return f'{size / 1e6:,.1f} MB' if size >= 1e6 else f'{size / 1e3:.1f} kB'


def shared_bytes(sample: Any) -> int:
    """Return the bytes that a sample's tensors take in shared memory: each a file of whole pages.

    Of a storage that holds more than the sample, a whole data set for one, the sample's own part
    counts: functions that collate copy it, and else it is sent once for all samples.

    Raises:
        Exception: where the sample cannot be pickled.
    """
    counter = _TensorCounter()
    counter.dump(sample)
    return counter.size


class _TensorCounter(pickle.Pickler):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), protocol=pickle.HIGHEST_PROTOCOL)
        self._sizes: dict[int, int] = {}  # by storage

    @property
    def size(self) -> int:
        return sum(self._sizes.values())

    def persistent_id(self, obj: Any) -> str | None:
        if not isinstance(obj, torch.Tensor):
            return None
        storage = obj.untyped_storage()
        if not obj.is_cuda:
            known = self._sizes.get(storage.data_ptr(), 0) + _in_pages(obj.nbytes)
            self._sizes[storage.data_ptr()] = min(known, _in_pages(storage.nbytes()))
        return 'tensor'


def _in_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


def need_of(loaders: Iterable[DataLoader]) -> Need | None:
    """Measure what the loaders of this process take at most.

    Args:
        loaders: those that are open at the same time.

    Returns:
        None where nothing is sent in shared memory or nothing could be measured.
    """
    space = free_and_total()
    if space is None:
        return None
    smallest, batches = [], 0
    for loader in loaders:
        sizes = _sample_sizes(loader) if loader.num_workers else []
        if sizes:
            # And the batch in use.
            ahead = loader.num_workers * (loader.prefetch_factor or 1) + 1
            number = loader.batch_size or getattr(loader.batch_sampler, 'batch_size', None) or 1
            smallest.append(number * min(sizes))
            batches += ahead * number * max(sizes)
    if not smallest:
        return None
    return Need(socket.gethostname(), *space, max(smallest), batches)


def judge(needs: Sequence[Need | None]) -> list[str]:
    """Compare what the processes of each machine need with what it has.

    Args:
        needs: of all processes.

    Returns:
        Warnings.

    Raises:
        SharedMemoryError: where a batch of one process does not fit.
    """
    machines: dict[str, list[Need]] = {}
    for need in needs:
        if need is not None:
            machines.setdefault(need.host, []).append(need)
    warnings = []
    for host, members in machines.items():
        free, total = min(need.free for need in members), members[0].total
        where = f'{FOLDER} of {host} has {size_of(free)} free of {size_of(total)}'
        batch = max(need.batch for need in members)
        if batch > free:
            raise SharedMemoryError(
                f'{where}, and one batch takes {size_of(batch)} there: {REMEDY}'
            )
        needed = sum(need.batches for need in members)
        if needed > free:
            processes = f'{len(members)} process{"es" if len(members) > 1 else ""}'
            warnings.append(
                f'{where}; the data loaders of {processes} may take {size_of(needed)} (workers x '
                f'prefetch_factor x batch), and workers die where it is full: {REMEDY}'
            )
    return warnings


def _sample_sizes(loader: DataLoader) -> list[int]:
    """Return the bytes of a few samples, none where they cannot be loaded like that.

    A process of their own loads them. What a data set opens with its first sample and processes
    must not share, a file of HDF5 or a connection for one, would be open in this process when it
    forks its workers. Those that are not forked send their data sets: nothing is measured.
    """
    if (loader.multiprocessing_context or multiprocessing).get_start_method() != 'fork':
        return []
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _measure(loader, writing)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], loader.timeout or None)
        return [int(size) for size in os.read(reading, 1024).split()] if ready else []
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _measure(loader: DataLoader, writing: int) -> NoReturn:
    """Write the bytes of a few samples, and end this process whatever happens."""
    try:
        torch.set_num_threads(1)  # as in workers
        if loader.worker_init_fn is not None:
            loader.worker_init_fn(0)
        dataset: Any = loader.dataset
        samples = (dataset[index] for index in range(min(_SAMPLES, len(dataset))))
        sizes = [shared_bytes(sample) for sample in samples if sample is not None]
        os.write(writing, ' '.join(map(str, sizes)).encode())
    finally:  # an error of anybody's data set: the run meets it again, and tells it then
        os._exit(0)
